"""The training loop that is usually written: PIL decodes every image when it is asked for, float32, plain SGD."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from common import PREPROCESSING
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from ice_ray.data.images import ImageSet

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class JpegDataset(Dataset[tuple[Tensor, int]]):
    """What is usually written: an image is decoded, cropped, flipped and normalised when it is asked for."""

    def __init__(self, files: list[bytes], labels: list[int]) -> None:
        self._files, self._labels = files, labels
        self._transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(PREPROCESSING.mean, PREPROCESSING.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.open(io.BytesIO(self._files[index])).convert("RGB")), self._labels[index]


def usual_loader(real: ImageSet, seed: int = 0) -> DataLoader[tuple[Tensor, int]]:
    """Over JPEG files of the same images."""
    files = []
    for pixels in real.images.numpy():
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
        files.append(buffer.getvalue())
    return DataLoader(
        JpegDataset(files, real.labels.tolist()),
        batch_size=128,
        shuffle=True,
        num_workers=2,
        pin_memory=DEVICE.type == "cuda",
        generator=torch.Generator().manual_seed(seed),
    )


def usual_epoch(model: nn.Module, batches: Iterator[Any] | DataLoader[Any], learning_rate: float) -> int:
    """(e)"""
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=1e-4)
    model.train()
    seen = 0
    for pixels, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(pixels.to(DEVICE)), labels.to(DEVICE)).backward()
        optimizer.step()
        seen += len(labels)
    model.eval()
    return seen
