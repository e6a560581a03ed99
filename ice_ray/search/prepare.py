"""What is done once per search, alone on a device: training where no weights are given, the probe, calibration."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import ray

from ice_ray.address import Place
from ice_ray.cluster.session import fetch
from ice_ray.cluster.workload import Workload, device_name, own_device
from ice_ray.engine.actions import SnapshotId, apart
from ice_ray.engine.cost import calibrate_speed
from ice_ray.files import damage_named, write_json
from ice_ray.guard import blaming
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.pipelines.records import Preparation
from ice_ray.search.trial_queue import owner_name


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
        """What a trial calls the dense network: as all others do, or where nothing is shared a name of its own."""
        return self.root if share_work else apart(self.root, owner_name(index))

    def save(self, path: Place) -> None:
        """Write it, so that a resumed search judges all its trials alike."""
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: Place) -> SearchPreparation:
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
