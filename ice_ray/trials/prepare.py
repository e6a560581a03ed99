"""What is done once per search, alone on a device: training where no weights are given, the probe, calibration."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

import ray
from torch import Tensor

from ice_ray.address import StoragePath
from ice_ray.cluster.session import fetch
from ice_ray.cluster.workload import Workload, device_name, own_device
from ice_ray.data.images import Preprocessing
from ice_ray.data.placement import to_device
from ice_ray.engine.actions import SnapshotId, apart
from ice_ray.engine.work import calibrate_speed
from ice_ray.errors import RunError
from ice_ray.files import damage_named, write_json
from ice_ray.guard import blaming
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.ingest.load import StageImages
from ice_ray.models.registry import ModelSpec
from ice_ray.pipelines.records import Preparation
from ice_ray.training.config import FineTuneConfig
from ice_ray.training.fine_tune import Recipe, fine_tune
from ice_ray.trials.trial_queue import owner_name

_EPOCHS = 30
_PEAK_RATE = 0.05
_WARM_UP_EPOCHS = 3


@dataclass(frozen=True)
class SearchPreparation:
    """What every trial of a search starts from.

    Attributes:
        preparation: original accuracy and freezing probe.
        flops_per_second: the work clock's speed.
        device: what did the work, for people.
        placement: where a trial's images live, for people.
        root: what the dense network is called where all trials share what they have in common.
        validation_images: how many images decide.
    """

    preparation: Preparation
    flops_per_second: float
    device: str
    placement: str
    root: SnapshotId
    validation_images: int

    def root_of(self, index: int, share_work: bool) -> SnapshotId:
        """The snapshot of the dense network for a trial: one of its own where nothing is shared."""
        return self.root if share_work else apart(self.root, owner_name(index))

    def save(self, path: StoragePath) -> None:
        """Write it, so that a resumed search judges all its trials alike."""
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: StoragePath) -> SearchPreparation:
        """What `save` wrote.

        Raises:
            UserError: it cannot be read.
        """
        with damage_named(path):
            content = json.loads(path.read_text())
            return cls(
                Preparation.from_dict(content["preparation"]),
                content["flops_per_second"],
                content["device"],
                content["placement"],
                content["root"],
                content["validation_images"],
            )


def prepare_search(
    workload: Workload, point: Hyperparameters, probe: bool, cpus: float, gpus: float, work_speed: float | None
) -> SearchPreparation:
    """Measure the dense model, probe for freezing and calibrate the work clock, with one trial's resources.

    Args:
        point: any trial's hyperparameters.
    """
    task = _prepare.options(num_cpus=cpus, num_gpus=gpus)
    prepared: SearchPreparation = fetch(task.remote(workload, point, probe, cpus, gpus, work_speed))
    return prepared


# One call a process: a worker that stays would keep its GPU memory from the trials.
@ray.remote(max_calls=1)
def _prepare(
    workload: Workload, point: Hyperparameters, probe: bool, cpus: float, gpus: float, work_speed: float | None
) -> Any:
    with blaming(workload.own_code):
        return _measured(workload, point, probe, cpus, gpus, work_speed)


def _measured(
    workload: Workload, point: Hyperparameters, probe: bool, cpus: float, gpus: float, work_speed: float | None
) -> SearchPreparation:
    device = own_device(cpus, gpus)
    executor = workload.executor(device)
    executor.warm_up()
    speed = work_speed or calibrate_speed(
        executor.network.build(device),
        executor.network.traces,
        executor.network.image_shape,
        device,
        executor.recipe.precision,
        min(executor.recipe.batch_size, workload.train.count),  # no trial sees a larger batch
    )
    preparation = workload.pipeline(point).prepare(executor, probe)
    return SearchPreparation(
        preparation, speed, device_name(device), executor.placement, executor.root, executor.validation_images
    )


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
