"""A dense model at chance is told from one that has learnt, on few images and on many, on even classes and on odd."""

import warnings

import numpy as np
import pytest
from ice_runs import PAPER

from ice_ray import IceHyperparameters, prune
from ice_ray.config.command_line import parse
from ice_ray.config.run import RunConfig
from ice_ray.data.images import ImageSet, Preprocessing, PruningData
from ice_ray.models.registry import ModelSpec
from ice_ray.pipelines.chance import no_better_than_chance
from ice_ray.workflow.search_stage import doubt_of_dense

TEN = np.arange(1000) % 10
HYPERPARAMETERS = IceHyperparameters(100.0, 0.0, 0.02, 5e-3, 0.15, 50)
OPTIONS = PAPER | {"batch_size": 64}


@pytest.mark.parametrize(
    ("accuracy", "labels", "doubted"),
    [
        (10.4, TEN, True),
        (12.8, TEN, True),
        (12.9, TEN, False),  # chance is 10%, and three standard errors are 2.85 points
        (11.0, np.tile(TEN, 10), False),
        (9.0, TEN, True),
        (93.0, TEN, False),
        (90.0, np.repeat([0, 1], [900, 100]), True),  # nine tenths are of one class
        (97.0, np.repeat([0, 1], [900, 100]), False),
        (100.0, np.arange(6) % 2, False),  # of few images all, or nearly, are right: no reason to doubt
        (83.3, np.arange(6) % 2, False),
        (50.0, np.arange(6) % 2, True),
        (90.0, np.zeros(10, np.int64), False),  # one class alone tells nothing
    ],
)
def test_chance_is_the_most_frequent_class(accuracy, labels, doubted):
    assert (no_better_than_chance(accuracy, labels) is not None) == doubted


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_guesses_are_doubted_and_learning_is_not(classes):
    """Guessers on 500 images are doubted but for a few in a thousand, what is twice as good as chance never."""
    random = np.random.default_rng(0)
    labels = np.arange(500) % classes
    guesses = [100 * float((random.integers(0, classes, 500) == labels).mean()) for _ in range(1000)]
    assert sum(no_better_than_chance(guess, labels) is None for guess in guesses) <= 20
    assert no_better_than_chance(max(300 / classes, 65.0), labels) is None


def test_a_line_names_the_first_suspect():
    def doubt(words: str, accuracy: float = 10.4) -> str:
        return doubt_of_dense(parse(RunConfig, words.split(), "p"), accuracy, TEN) or ""

    own = doubt("--model examples.model:build")
    assert "dense: 10.40% on 1000 images, no better than chance (10 classes, 10.00% of them the most frequent)" in own
    assert own.index("--weights") < own.index("--mean")
    given = doubt("--model examples.model:build --weights w.pth")
    assert "no --weights" not in given
    assert "--mean and --std are ImageNet's" in given
    assert "order of the classes" in given
    assert "ImageNet's" not in doubt("--mean 0.5 0.5 0.5 --std 0.5 0.5 0.5 --weights w.pth --data cifar10")
    assert doubt("--model examples.model:build", 93.0) == ""
    assert doubt("--pipeline bimp --model examples.model:build") == ""  # it trains anew, as was asked


def test_the_operator_in_process_warns_once(trained, data):
    fresh = ModelSpec("cifar-resnet8", num_classes=10).build()
    with pytest.warns(UserWarning, match="no better than chance") as caught:
        prune(fresh, data, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="cpu", **OPTIONS)
    assert len([each for each in caught if "chance" in str(each.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        prune(trained, data, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="cpu", **OPTIONS)


def test_wrong_means_make_a_trained_network_doubtful(trained, data):
    """The network's own images, shifted out of what it was trained on."""
    dark = PruningData(data.train, data.validation, Preprocessing(mean=(1.0, 1.0, 1.0), std=(0.001, 0.001, 0.001)))
    with pytest.warns(UserWarning, match="mean and std"):
        prune(trained, dark, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="cpu", **OPTIONS)


def test_images_of_random_labels_are_at_chance():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    some = ImageSet.from_numpy(images, random.integers(0, 4, 200))
    with pytest.warns(UserWarning, match="4 classes"):
        data = PruningData(some, some)
        prune(ModelSpec("cifar-resnet8", 4).build(), data, hyperparameters=HYPERPARAMETERS, device="cpu", **OPTIONS)
