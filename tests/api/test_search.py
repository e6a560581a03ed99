"""What `ice_ray.search` refuses before Ray starts, and the run that it describes, against the job's."""

import pytest
import torch
from torch import nn

import ice_ray
from ice_ray import SearchConfig, UserError
from ice_ray.api.search import _described
from ice_ray.config.command_line import parse
from ice_ray.config.run import RunConfig
from ice_ray.workflow.given import Given, digest_of


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)))


IMAGES = torch.zeros(8, 1, 8, 8), torch.arange(8) % 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": 3}, "model=3 must be a torch.nn.Module, or a model's name"),
        ({"batchsize": 3}, "search has no argument 'batchsize' .*batch_size"),
        ({"batch_size": "many"}, "batch_size='many'"),
        ({"trials": 0}, "trials 0 must be at least 1"),
        ({"trials": 1.5}, r"trials=1\.5 must be a whole number"),
        ({"ratio": 0.5, "target": "macs=0.5"}, "ratio and target both say how much"),
        ({"target": 0.5}, r"target=0\.5 must be a string"),
        ({"search": {"trials": 3}}, "search=.* must be a SearchConfig"),
        ({"replay": 2}, "replay=2 must be a ReplayConfig, True or False"),
        ({"resume": True}, "^resume=True needs the name of the run"),
        ({"val": None}, "val: no validation images"),
        ({"image_size": 8}, "image_size is for data by name"),
        ({"train": "digits"}, "val: data 'digits', a name, has images of its own"),
        ({"preprocessing": 3}, "preprocessing=3 must be a Preprocessing"),
        ({"mean": (0.5, 0.5, 0.5), "preprocessing": ice_ray.Preprocessing()}, "mean: preprocessing says that"),
        ({"pipeline": "imp", "criterion": "l1"}, "search has no argument 'criterion'"),
        ({"name": "a/b"}, "name 'a/b' must be a plain folder name"),
    ],
)
def test_wrong_arguments_are_refused_by_their_names(arguments, said, tmp_path):
    given = {"model": Net(), "train": IMAGES, "val": IMAGES, "storage": tmp_path / "runs"} | arguments
    with pytest.raises(UserError, match=said):
        ice_ray.search(given.pop("model"), given.pop("train"), given.pop("val"), **given)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("--name a", {"name": "a"}),
        ("--target macs=0.5 --batch-size 32 --name a", {"target": "macs=0.5", "batch_size": 32, "name": "a"}),
        ("--ratio 0.3 --criterion l1 --repair none", {"ratio": 0.3, "criterion": "l1", "repair": "none"}),
        ("--pipeline one-shot --seed 3", {"pipeline": "one-shot", "seed": 3}),
        ("--search.trials 3 --search.clock work", {"trials": 3, "search": SearchConfig(clock="work")}),
        (
            "--preset small --model cifar-resnet14 --data digits --decide-on test",
            {"preset": "small", "decide_on": "test"},
        ),
    ],
)
def test_the_run_is_the_one_that_a_command_line_describes(words, arguments):
    rest = {"config": None, "stage_1": arguments.pop("search", None), "stage_2": True, "resume": False}
    described = _described("cifar-resnet14", "digits", arguments, **rest)
    assert described == parse(RunConfig, words.split(), "p")


def test_trials_are_at_most_the_points_of_the_space():
    run = _described("cifar-resnet14", "digits", {"trials": 5000}, None, None, True, False)
    assert run.search.trials == len(
        ice_ray.api.search.load_space("default").fixing(run.options.idle_hyperparameters).points()
    )


def test_a_model_is_known_by_its_layers_and_weights():
    torch.manual_seed(0)
    model = Net()
    same = Net()
    same.load_state_dict(model.state_dict())
    assert digest_of(model) == digest_of(same)
    with torch.no_grad():
        same.head.bias[0] += 1
    assert digest_of(model) != digest_of(same)
    same.load_state_dict(model.state_dict())
    same.features[2].stride = (2, 2)
    assert digest_of(model) != digest_of(same)


def test_what_was_given_as_objects_is_kept_as_digests():
    model = Net()
    assert Given().record() == {"model": None, "data": None, "preprocessing": None}
    assert Given(model=model).record()["model"] == digest_of(model)
    assert Given(code="ice_ray.search()").going_on("a") == "ice_ray.search(..., name='a', resume=True)"
    assert Given().going_on("a") == "--resume --name a"
