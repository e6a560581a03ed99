"""ice_ray.inspect: the numbers of the job, for an nn.Module."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import ice_ray
from ice_ray import LayerwisePruneConfig, UserError
from ice_ray.config.jobs import InspectConfig
from ice_ray.models.registry import ModelSpec
from ice_ray.workflow.inspection import inspect_job
from ice_ray.workflow.running import run

ROOT = Path(__file__).parent.parent.parent


def test_table_and_lines_are_the_job_s(capsys):
    words = ["--model", "cifar-resnet8", "--target", "params=0.5", "--prune.exclude", "layer1.*", "--image-size", "24"]
    assert run(inspect_job, InspectConfig, "ice_inspect.py", words) == 0
    told = capsys.readouterr().out
    module = ModelSpec("cifar-resnet8", 10).build()
    own = ice_ray.inspect(module, (3, 24, 24), target="params=0.5", prune=LayerwisePruneConfig(exclude=("layer1.*",)))
    shown = str(own).replace("CifarResNet: ", "cifar-resnet8: ").replace("; images= ", "; --data and --weights ")
    assert told.splitlines()[0].split()[:2] == ["cifar-resnet8,", "params=0.5:"]
    assert shown.split() == [word for line in told.splitlines()[1:] for word in line.split()]
    assert f"ratio {own.ratio:g} leaves" in told
    assert "would show the width of each that costs least, which a run keeps" in told


def test_with_images_it_shows_the_widths_that_prune_keeps_and_what_they_cost(trained, data):
    seen = ice_ray.inspect(trained, (3, 8, 8), target="macs=0.5", images=data.train, preprocessing=data.preprocessing)
    result = ice_ray.prune(trained, data, target="macs=0.5", device="cpu", batch_size=64, repair="none")
    assert {unit.layer: unit.kept for unit in seen.units if unit.kept < unit.filters} == result.description["widths"]
    assert seen.found is not None
    assert seen.found.loss == pytest.approx(sum(unit.loss for unit in seen.units))
    assert seen.found.loss < seen.found.uniform_loss
    assert "expected loss" in str(seen)
    assert "loss (nats)" in str(seen)


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"ratio": 0.5}, "images share out a target: give one, or leave them out"),
        ({"target": "macs=0.5", "image_shape": (3, 16, 16)}, r"images are \(3, 8, 8\), image_shape says \(3, 16, 16\)"),
    ],
)
def test_images_that_do_not_go_with_the_rest(trained, data, keywords, told):
    with pytest.raises(UserError, match=told):
        ice_ray.inspect(trained, **{"image_shape": (3, 8, 8), "images": data.train} | keywords)


class Grey(nn.Module):
    def __init__(self, name: str = "features") -> None:
        super().__init__()
        self.add_module(name, nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()))
        self.head, self.name = nn.Linear(8, 3), name

    def forward(self, images):
        return self.head(self.get_submodule(self.name)(images).mean((2, 3)))


def test_one_channel_and_any_height_and_width():
    seen = ice_ray.inspect(Grey(), [1, 20, 33], ratio=0.25)
    assert [(unit.layer, unit.step, unit.filters, unit.kept) for unit in seen.units] == [
        ("features.0", 1, 8, 6),
        ("features.2", 2, 8, 6),
    ]
    assert seen.dense["multiply_adds"] == 9 * 8 * 18 * 31 + 9 * 64 * 16 * 29 + 24
    assert list(seen.layers.index) == ["features.0", "features.2"]
    assert list(seen.layers["kept"]) == [6, 6]
    assert "head" in seen.refused


def test_names_of_layers_are_shown_as_they_are():
    shown = ice_ray.inspect(Grey("[red]<b>"), (1, 16, 16))
    assert "[red]<b>.0" in str(shown)
    assert "[red]&lt;b&gt;.0</td>" in shown._repr_html_()
    assert not re.search("<b>", shown._repr_html_())


def test_the_model_stays_as_it_is():
    model = Grey().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ice_ray.inspect(model, (1, 16, 16))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"image_shape": (224, 224)}, r"image_shape=\(224, 224\) must be three whole numbers"),
        ({"image_shape": 224}, "image_shape=224 must be three"),
        ({"image_shape": (1, 16, 16.5)}, "image_shape=.* must be three whole numbers"),
        ({"image_shape": (1, 0, 16)}, r"image_shape=\(1, 0, 16\) must be of numbers from 1"),
        ({"image_shape": (3, 16, 16)}, r"takes images of 1 channel, not of 3, as in \(C, H, W\) = \(3, 16, 16\)"),
        (
            {"image_shape": (16, 20, 1)},
            r"not of 16: the channels come first, \(C, H, W\) = \(1, 16, 20\), not",
        ),
        ({"ratio": 0.5, "target": "macs=0.5"}, "ratio and target both"),
        ({"ratio": "half"}, "ratio 'half' must be a number"),
        ({"target": 0.5}, r"target=0\.5 must be words"),
        ({"ratio": "0.5"}, r"ratio '0\.5' must be a number"),
        ({"target": "macs=0.001"}, r"out of reach.*; no other layer can be pruned \(inspect says why\)$"),
        ({"target": "flops=0.5"}, "target 'flops=0.5' must be macs=, params=, latency= or onnx-latency="),
        ({"prune": {"exclude": "head"}}, "prune must be a LayerwisePruneConfig, not dict"),
        ({"precision": "fp8", "target": "latency=0.9"}, "precision 'fp8'"),
        ({"device": 3.5}, r"device=3\.5 is none that torch knows"),
        ({"model": "resnet"}, "the model is of type str, not a torch.nn.Module"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(words, said):
    with pytest.raises(UserError, match=said) as error:
        ice_ray.inspect(**({"model": Grey(), "image_shape": (1, 16, 16)} | words))
    assert "\n" not in str(error.value)
