"""A folder as a user has one, outside any checkout: their network in a module, its trained weights, their images."""

from __future__ import annotations

import os
import sys
from importlib import util
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from ice_ray.ingest.datasets.digits import Digits

MODULE = '''
import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, channels, inner):
        super().__init__()
        self.reduce = nn.Conv2d(channels, inner, 3, padding=1)
        self.norm = nn.GroupNorm(4, inner)
        self.expand = nn.Conv2d(inner, channels, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.expand(torch.relu(self.norm(self.reduce(x)))))


class Inception(nn.Module):
    """Two branches, concatenated, and a gate on the channels."""

    def __init__(self, channels, out):
        super().__init__()
        self.near = nn.Sequential(nn.Conv2d(channels, 24, 1), nn.ReLU(), nn.Conv2d(24, out // 2, 3, padding=1))
        self.far = nn.Sequential(nn.Conv2d(channels, 24, 1), nn.ReLU(), nn.Conv2d(24, out // 2, 5, padding=2))
        self.gate = nn.Sequential(nn.Linear(out, 8), nn.ReLU(), nn.Linear(8, out), nn.Sigmoid())

    def forward(self, x):
        x = torch.cat([self.near(x), self.far(x)], dim=1)
        return torch.relu(x * self.gate(x.mean((2, 3)))[:, :, None, None])


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.block = Residual(16, 32)
        self.mixed = Inception(16, 32)
        self.head = nn.Linear(32 * 4, classes)

    def forward(self, images):
        x = self.mixed(self.block(torch.relu(self.stem(images))))
        return self.head(nn.functional.adaptive_max_pool2d(x, 2).flatten(1))


def build():
    return Net(classes=10)
'''
OPTIONS = ["--model", "mynet:build", "--weights", "trained.pth", "--data", "imagefolder:photos", "--image-size", "8"]
NORMALISED = ["--mean", "0.5", "0.5", "0.5", "--std", "0.5", "0.5", "0.5"]
_EPOCHS = 6


def fill(folder: Path) -> None:
    """Write mynet.py, trained.pth (it has learned the digits) and photos/train, photos/test (the digits as PNG)."""
    (folder / "mynet.py").write_text(MODULE)
    dataset = Digits()
    for split in ("train", "test"):
        labels = dataset.labels[split]
        for number, row in enumerate(dataset.read(split, np.arange(len(labels)))):
            place = folder / "photos" / split / f"digit-{labels[number]}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(row.pixels).save(place / f"{number:04}.png")
    torch.save(_trained(folder, dataset).state_dict(), folder / "trained.pth")


def environment(home: Path) -> dict[str, str]:
    """Variables of a shell in which the environment below `home` is active, and nothing is known of this process's."""
    left_out = ("PYTHON", "VIRTUAL_ENV", "UV", "RAY_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    without_ours = [part for part in kept["PATH"].split(os.pathsep) if Path(part) != Path(sys.executable).parent]
    path = os.pathsep.join([str(home / "bin"), *without_ours])
    return kept | {"PATH": path, "RAY_ADDRESS": "local", "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "120"}


def _trained(folder: Path, dataset: Digits) -> nn.Module:
    spec = util.spec_from_file_location("mynet", folder / "mynet.py")
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    model: nn.Module = module.build()
    rows = dataset.read("train", np.arange(len(dataset.labels["train"])))
    pixels = np.stack([row.pixels for row in rows if row.pixels is not None])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    labels = torch.from_numpy(dataset.labels["train"]).long()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(_EPOCHS):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval()
