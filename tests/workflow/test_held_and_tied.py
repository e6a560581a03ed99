"""A model of the user's own with fixed and shared tensors through both stages: as it was built, but smaller."""

import json
import subprocess

import pytest
import torch
from ice_runs import DIGITS
from jobs_at_work import command

import ice_ray
from ice_ray.models.registry import ModelSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MODEL = """
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(8, 16, 3, padding=1), nn.GroupNorm(4, 16)
        self.conv2, self.norm2 = nn.Conv2d(16, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x):
        return (x + self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))).relu()


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem, self.one, self.two, self.three = nn.Conv2d(3, 8, 3, padding=1), Block(), Block(), Block()
        self.again, self.head, self.other = self.one, nn.Linear(8, num_classes), nn.Linear(8, num_classes)
        self.other.weight = self.head.weight
        self.stem.requires_grad_(False)
        self.two.conv1.requires_grad_(False)

    def forward(self, x):
        x = self.again(self.three(self.two(self.one(self.stem(x).relu())))).mean((2, 3))
        return self.head(x) + self.other(x)


def build(num_classes):
    return Net(num_classes)
"""


def test_both_stages_keep_them(tmp_path, monkeypatch):
    (tmp_path / "held_model.py").write_text(MODEL)
    options = ["--name", "held", "--model", "held_model:build", "--data", "digits", "--replay.workers", "2"]
    arguments = command("ice_prune.py", tmp_path / "runs", *options, "--search.trials", "1", "--space", DIGITS)
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = " ".join(ended.stdout.split())
    assert "the model holds stem.weight, stem.bias, two.conv1.weight and 1 more fixed (requires_grad=False)" in said
    monkeypatch.syspath_prepend(tmp_path)
    import held_model  # type: ignore[import-not-found]

    folder = tmp_path / "runs" / "held" / "pruned_model"
    description = json.loads((folder / "model.json").read_text())
    fixed = ["stem.weight", "stem.bias", "two.conv1.weight", "two.conv1.bias"]
    assert description["frozen"] == fixed
    assert set(description["widths"]) == {"one.conv1", "three.conv1"}
    model = ice_ray.load_pruned(folder, builder=held_model.build)
    assert [name for name, each in model.named_parameters() if not each.requires_grad] == fixed
    assert model.again is model.one
    assert model.other.weight is model.head.weight
    assert (model.one.norm1.num_groups, model.two.conv1.out_channels) == (4, 16)
    dense = ModelSpec("held_model:build", 10).build().state_dict()
    assert all(torch.equal(model.state_dict()[name], dense[name]) for name in fixed)
    assert not torch.equal(model.head.weight, dense["head.weight"])
    images = torch.randn(2, 3, 8, 8)
    assert model(images).shape == (2, 10)
