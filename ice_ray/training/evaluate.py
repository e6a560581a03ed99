"""Counting right answers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ice_ray.data.batches import Shard, evaluation_batches
from ice_ray.data.images import ImageSet, Preprocessing
from ice_ray.training.precision import Precision, autocast

EVALUATION_BATCH = 500


def count_correct(
    model: nn.Module, images: ImageSet, preprocessing: Preprocessing, precision: Precision, shard: Shard
) -> Tensor:
    """How many of this shard's images the model labels right, as an int64 scalar on their device.

    The model runs in eval mode and is left in the mode it came in.
    """
    device = images.images.device
    correct = torch.zeros((), dtype=torch.int64, device=device)
    was_training = model.training
    model.eval()
    with torch.inference_mode(), autocast(precision, device):
        for batch, labels in evaluation_batches(images, preprocessing, EVALUATION_BATCH, shard):
            correct += (model(batch).argmax(dim=1) == labels).sum()
    model.train(was_training)
    return correct
