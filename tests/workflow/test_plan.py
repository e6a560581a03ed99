"""A run's description checked against its data and model: no Ray."""

import pytest
import torch
from layouts import pixels, write_image

from ice_ray.config.command_line import parse
from ice_ray.config.jobs import InspectConfig
from ice_ray.config.run import RunConfig
from ice_ray.data.config import IMAGENET_MEAN, IMAGENET_STD
from ice_ray.data.images import ImageSet, Preprocessing
from ice_ray.errors import UserError
from ice_ray.ingest.datasets.held import HeldDataset
from ice_ray.workflow.given import Given
from ice_ray.workflow.inspection import inspect_job
from ice_ray.workflow.jobs import prune_job
from ice_ray.workflow.plan import make_plan
from ice_ray.workflow.running import run


@pytest.mark.parametrize(
    ("words", "batch"),
    [
        ("", 32),  # digits: trials have half of the images
        ("--search.subsample 0.2 --replay.subsample 0.3", 32),
        ("--search.subsample 0.3 --replay.subsample 0.3", 128),
        ("--search.subsample 0.3 --replay.subsample 0.3 --batch-size 64", 64),
        ("--search.subsample 0.3 --replay.subsample 0.2", 128),
        ("--batch-size 16", 16),
        ("--search.subsample 0.3 --replay.subsample 0.3 --search.batch-size 24", 24),
    ],
)
def test_trials_with_the_replays_images_take_its_batches(words, batch):
    plan = make_plan(parse(RunConfig, words.split(), "p"))
    assert plan.search_settings.batch_size == batch


@pytest.mark.parametrize(
    ("words", "given", "said"),
    [
        (
            "",
            Preprocessing(IMAGENET_MEAN, IMAGENET_STD),
            "^preprocessing: mean and std are for uint8 images, and these",
        ),
        ("--mean 0.5 0.5 0.5 --std 0.5 0.5 0.5", None, "^--mean, --std: mean and std are for uint8 images, and these"),
    ],
)
def test_mean_and_std_of_floats_are_refused(words, given, said):
    images = ImageSet(torch.randn(40, 8, 8, 3), torch.arange(40) % 10)
    data = HeldDataset({"train": images, "val": images})
    config = parse(RunConfig, f"--model cifar-resnet8 --repair none {words}".split(), "p")
    with pytest.raises(UserError, match=said):
        make_plan(config, given=Given(data=data, preprocessing=given))
    plan = make_plan(parse(RunConfig, ["--model", "cifar-resnet8"], "p"), given=Given(data=data))
    assert (plan.preprocessing.mean, plan.preprocessing.std) == ((), ())


DEADLY = """
import os, signal
import torch
from torch import nn

class Dies(torch.autograd.Function):
    @staticmethod
    def forward(context, maps):
        return maps.clone()

    @staticmethod
    def backward(context, gradient):
        os.kill(os.getpid(), signal.SIGSEGV)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten())
        self.head = nn.Linear(128, 10)

    def forward(self, images):
        return self.head(Dies.apply(self.body(images)))

def build():
    return Net()
"""


@pytest.mark.parametrize(
    ("job", "kind", "program"),
    [(prune_job, RunConfig, "ice_prune.py"), (inspect_job, InspectConfig, "ice_inspect.py")],
)
def test_a_network_that_ends_its_process_ends_the_job_in_one_line(job, kind, program, tmp_path, monkeypatch, capsys):
    (tmp_path / "deadly_network.py").write_text(DEADLY)
    monkeypatch.chdir(tmp_path)
    size = ["--image-size", "8"] if kind is InspectConfig else []
    assert run(job, kind, program, ["--model", "deadly_network:build", *size]) == 2
    line = capsys.readouterr().err.strip()
    assert "model 'deadly_network:build' ended the process that looked at it (SIGSEGV, a segmentation fault)" in line
    assert len(line.splitlines()) == 1


def few_images(folder, train: dict[str, int]) -> str:
    """So many training images of each class, four that decide and report."""
    for split, counts in (("train", train), ("test", {"ant": 2, "bee": 2})):
        for label, count in counts.items():
            for number in range(count):
                write_image(folder / split / label / f"{number}.jpg", pixels(1, 8, 8)[0])
    return f"--data imagefolder:{folder} --image-size 8 --model examples.model:build"


@pytest.mark.parametrize(
    ("counts", "words", "said"),
    [
        ((2, 1), "--replay.workers 2", r"3 training images.*2 workers.*--replay.subsample.*fewer --replay.workers"),
        ((20, 20), "--replay.workers 3 --replay.subsample 0.1", r"4 training images.*3 workers"),
        (
            (20, 20),
            "--replay.workers 2 --final.epochs 1 --final.rate 0.01 --final.subsample 0.05",
            r"2 training images.*--final.subsample",
        ),
        ((1, 1), "--decide-on train", r"0 training images"),
    ],
)
def test_an_epoch_without_a_step_is_refused_before_ray_starts(tmp_path, counts, words, said):
    given = few_images(tmp_path, dict(zip(("ant", "bee"), counts, strict=True)))
    with pytest.raises(UserError, match=said):
        make_plan(parse(RunConfig, f"{given} {words}".split(), "p"))
    make_plan(parse(RunConfig, f"{few_images(tmp_path, {'ant': 40, 'bee': 40})} {words}".split(), "p"))
