"""A whole job on a network as people write them: a view before its head, a second head in training, a checkpoint."""

import json
import re
import subprocess

import pytest
import torch
from jobs_at_work import ROOT, command

import ice_ray

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.third = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(512, num_classes)
        self.auxiliary = nn.Linear(8, num_classes)

    def forward(self, images):
        maps = self.first(images)
        deep = self.third(self.second(maps))
        logits = self.head(deep.view(deep.size(0), -1))
        return {"aux": self.auxiliary(maps.mean((2, 3))), "logits": logits} if self.training else logits

def build(num_classes):
    return Net(num_classes)
"""


def test_from_a_checkpoint_to_the_pruned_model_in_two_processes(tmp_path, monkeypatch):
    (tmp_path / "written_by_people.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    from written_by_people import build

    torch.manual_seed(0)
    dense = build(10).state_dict()
    held = {f"model._orig_mod.{key}": each for key, each in dense.items()} | {
        "model._orig_mod.total_ops": torch.ones(1)
    }
    torch.save({"state_dict": held, "ema": dense, "epoch": 3}, tmp_path / "last.ckpt")
    options = ["--model", "written_by_people:build", "--weights", "last.ckpt", "--name", "own", "--replay.workers", "2"]
    ended = subprocess.run(
        command("ice_prune.py", tmp_path, *options), capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "holds state_dict and ema: state_dict is taken" in " ".join(ended.stdout.split())
    folder = tmp_path / "own" / "pruned_model"
    description = json.loads((folder / "model.json").read_text())
    assert description["layout"] == "contiguous"
    assert description["widths"].keys() == {"second.0", "third.0"}
    model = ice_ray.load_pruned(folder, build)
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
    assert model.train()(torch.zeros(2, 3, 8, 8))["logits"].shape == (2, 10)


# The data as docs/data.md prints them.
GREY = (
    re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL)[1]
    + """
from torch import nn


def build(num_classes):
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    layers += [nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, num_classes))
"""
)


def test_floats_of_one_channel_go_through_both_stages(tmp_path, monkeypatch):
    (tmp_path / "grey.py").write_text(GREY)
    options = ["--model", "grey:build", "--data", "grey:digits", "--name", "own", "--search.subsample", "0.5"]
    ended = subprocess.run(
        command("ice_prune.py", tmp_path, *options), capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    folder = tmp_path / "own" / "pruned_model"
    description = json.loads((folder / "model.json").read_text())
    assert description["image_shape"] == [1, 8, 8] and description["preprocessing"]["mean"] == []
    assert "normalised as the images were that it was pruned with" in (folder / "README.md").read_text()
    monkeypatch.syspath_prepend(tmp_path)
    from grey import build

    assert ice_ray.load_pruned(folder, build)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    wrong = [*options, "--name", "other", "--mean", "0.1", "--std", "0.3"]
    refused = subprocess.run(
        command("ice_prune.py", tmp_path, *wrong), capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert refused.returncode == 2
    assert "--mean, --std: mean and std are for uint8 images, and these are floats" in " ".join(refused.stderr.split())
