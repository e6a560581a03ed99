"""CIFAR-10 from parquet files, and the accuracy of a network on it, in plain PyTorch."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@cache
def cifar10(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images, uint8 (N, 3, 32, 32), and labels, int64 (N,), of `train` or `test`."""
    files = sorted(folder.glob(f"{split}*.parquet"))
    if not files:
        raise SystemExit(f"no {split}*.parquet in {folder}: python benchmarks/prepare.py makes them")
    table = pq.read_table(files, columns=["image", "label"])
    pixels = [np.asarray(Image.open(io.BytesIO(each)).convert("RGB")) for each in table["image"].to_pylist()]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), torch.tensor(table["label"].to_pylist())


def part(labels: Tensor, count: int, seed: int) -> Tensor:
    """Row numbers of a random part with as many images of every class."""
    random = torch.Generator().manual_seed(seed)
    own = [(labels == each).nonzero()[:, 0] for each in labels.unique()]
    return torch.cat([rows[torch.randperm(len(rows), generator=random)[: count // len(own)]] for rows in own])


def normalised(images: Tensor) -> Tensor:
    """Floats as the network has seen them in training."""
    mean, std = (torch.tensor(each, device=images.device).view(1, 3, 1, 1) for each in (MEAN, STD))
    return (images.float() / 255 - mean) / std


@torch.inference_mode()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Percent, in float32."""
    model.eval()
    device = next(model.parameters()).device
    batches = zip(images.split(1000), labels.split(1000), strict=True)
    right = sum(int((model(normalised(x.to(device))).argmax(1) == y.to(device)).sum()) for x, y in batches)
    return 100 * right / len(labels)
