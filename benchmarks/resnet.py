"""A CIFAR ResNet as a user of their own would write it, with the published checkpoints' names of parameters."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

import ice_ray


class Block(nn.Module):
    """Two convolutions around a shortcut; where the size changes, that skips pixels and adds channels of zeros."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.grows = channels != before
        self.conv1 = nn.Conv2d(before, channels, 3, 2 if self.grows else 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.grows:
            added = out.size(1) - x.size(1)
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, added // 2, added // 2))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """ResNet of depth 6n+2: images (N, 3, 32, 32) to logits (N, 10)."""

    def __init__(self, depth: int = 20) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(Block(before, channels), *(Block(channels, channels) for _ in range(blocks - 1)))
            for before, channels in ((16, 16), (16, 32), (32, 64))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits


def trained(weights: Path, depth: int = 20) -> CifarResNet:
    """With the weights of a published checkpoint, or of a safetensors file."""
    return ice_ray.load_weights(CifarResNet(depth), weights)
