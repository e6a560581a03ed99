"""Networks of the CIFAR family: ResNet and MobileNetV2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (16, 32, 64)


class PaddedShortcut(nn.Module):
    """Option A: every second row and column, zero channels added on both sides.

    Shapes: (N, C, H, W) to (N, before + C + after, H/2, W/2).

    Attributes:
        before, after: zero channels; pruning takes some of them away where channels of the sum behind go.
    """

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.before = self.after = padding

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut. conv1's filters are what ICE-Pruning prunes."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        changes = stride != 1 or in_channels != channels
        self.shortcut = PaddedShortcut((channels - in_channels) // 2) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """A CIFAR ResNet; parameter names conv1, bn1, layer1.0.conv1, ..., linear, as published checkpoints have them.

    Args:
        depth: 6n+2, for example 20, 56, 110, 152.
        num_classes: outputs of the classifier.

    Shapes: images (N, 3, H, W) to logits (N, num_classes); H and W at least 4.
    """

    def __init__(self, depth: int, num_classes: int = 10) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth {depth} is not 6n+2")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], blocks, stride=1)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], blocks, stride=2)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], blocks, stride=2)
        self.linear = nn.Linear(WIDTHS[2], num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(out, 1), 1))
        return logits


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


# Per stage: expansion, output channels, blocks, stride of the first block.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, HEAD = 32, 1280


class InvertedResidual(nn.Module):
    """Expansion (1x1), depthwise (3x3), projection (1x1). conv1's filters are what ICE-Pruning prunes.

    Where the stride is 1 a shortcut is added, through a 1x1 convolution where the width changes.
    """

    def __init__(self, in_channels: int, channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = expansion * in_channels
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.adds = stride == 1
        self.shortcut: nn.Module = nn.Identity()
        if self.adds and in_channels != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        summed: Tensor = out + self.shortcut(x) if self.adds else out
        return summed


class CifarMobileNetV2(nn.Module):
    """Strides 1, 1, 2, 2, 1, 2, 1 and ReLU, for images of 32x32.

    Shapes: images (N, 3, H, W) to logits (N, num_classes).
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        blocks: list[nn.Module] = []
        width = STEM
        for expansion, channels, count, stride in STAGES:
            for number in range(count):
                blocks.append(InvertedResidual(width, channels, expansion, stride if number == 0 else 1))
                width = channels
        self.layers = nn.Sequential(*blocks)
        self.conv2 = nn.Conv2d(width, HEAD, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(HEAD)
        self.linear = nn.Linear(HEAD, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layers(F.relu(self.bn1(self.conv1(x))))
        out = F.relu(self.bn2(self.conv2(out)))
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(out, 1), 1))
        return logits
