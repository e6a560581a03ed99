"""A model of your own: any module that gives logits, from a function that may take the number of classes.

    python examples/model.py digits_cnn.safetensors
    python jobs/ice_prune.py --model examples.model:build --weights digits_cnn.safetensors

The first line trains it; you would have trained yours already.
"""

import sys

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ice_ray.ingest.datasets import open_dataset


class SmallCnn(nn.Module):
    """Three convolutions and a head; nothing in it knows of pruning."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.conv3, self.norm3 = nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32)
        self.head = nn.Linear(32, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        x = F.relu(self.norm3(self.conv3(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def build(num_classes: int) -> nn.Module:
    """The dense model, untrained; its weights come from --weights."""
    return SmallCnn(num_classes)


def train(path: str) -> None:
    """Train it on scikit-learn's digits and write its weights."""
    torch.manual_seed(0)
    digits = open_dataset("digits")
    labels = torch.from_numpy(digits.labels["train"])
    rows = digits.read("train", np.arange(len(labels)))
    pixels = torch.from_numpy(np.stack([row.pixels for row in rows if row.pixels is not None]))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)
    model = build(10)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(20):
        for batch in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    safetensors.torch.save_file(model.state_dict(), path)


if __name__ == "__main__":
    train(sys.argv[1])
