"""Training a dense model first, where a job has data but no weights (the embedded digits)."""

from __future__ import annotations

import math
from typing import Any

import ray
from torch import Tensor

from ice_ray.cluster.session import fetch
from ice_ray.cluster.workload import own_device
from ice_ray.data.images import Preprocessing
from ice_ray.data.placement import to_device
from ice_ray.errors import RunError
from ice_ray.guard import blaming
from ice_ray.ingest.load import StageImages
from ice_ray.models.registry import ModelSpec
from ice_ray.training.config import FineTuneConfig
from ice_ray.training.fine_tune import Recipe, fine_tune

_EPOCHS = 30
_PEAK_RATE = 0.05
_WARM_UP_EPOCHS = 3


def train_dense(
    spec: ModelSpec, images: StageImages, preprocessing: Preprocessing, seed: int, cpus: float, gpus: float
) -> dict[str, Tensor]:
    """Train `spec` on `images` from its initial weights, on one device; returns its state dict on the CPU.

    Thirty epochs of SGD, linear from 0.05 to 0 after a short warm-up: enough for the small sets it is meant for.
    """
    task = _train.options(num_cpus=cpus, num_gpus=gpus)
    weights: dict[str, Tensor] = fetch(task.remote(spec, images, preprocessing, seed, cpus, gpus))
    return weights


@ray.remote(max_calls=1)
def _train(
    spec: ModelSpec, images: StageImages, preprocessing: Preprocessing, seed: int, cpus: float, gpus: float
) -> Any:
    with blaming({"model": spec.name} if spec.is_users_own else {}):
        return _trained(spec, images, preprocessing, seed, cpus, gpus)


def _trained(
    spec: ModelSpec, images: StageImages, preprocessing: Preprocessing, seed: int, cpus: float, gpus: float
) -> dict[str, Tensor]:
    device = own_device(cpus, gpus)
    model = spec.build().to(device)
    recipe = Recipe(batch_size=64, options=FineTuneConfig(distil=False))
    own = to_device(images.get(), device)
    _, losses = fine_tune(model, own, preprocessing, recipe, _rate, _EPOCHS, (seed, "dense"))
    if not math.isfinite(float(losses.sum())):
        raise RunError("training the dense model diverged")
    return {key: tensor.cpu() for key, tensor in model.state_dict().items()}


def _rate(progress: float) -> float:
    """Linear up over the first epochs, then linear down to 0 at the end."""
    warm_up = _WARM_UP_EPOCHS / _EPOCHS
    return _PEAK_RATE * min((progress + 1 / _EPOCHS) / warm_up, (1 - progress) / (1 - warm_up))
