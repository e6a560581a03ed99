"""What is done once per search, alone on a device: training where no weights are given, the probe, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray

from ice_ray.cluster.workload import Workload, device_name, own_device
from ice_ray.engine.cost import calibrate_speed
from ice_ray.pipelines.prepare import prepare
from ice_ray.pipelines.records import Preparation


@dataclass(frozen=True)
class SearchPreparation:
    """What every trial of a search starts from.

    Attributes:
        preparation: original accuracy and freezing probe.
        flops_per_second: the work clock's speed.
        device: what did the work, for people.
    """

    preparation: Preparation
    flops_per_second: float
    device: str
    steps: int


def prepare_search(
    workload: Workload, probe: bool, cpus: float, gpus: float, work_speed: float | None
) -> SearchPreparation:
    """Measure the dense model, probe for freezing and calibrate the work clock, with one trial's resources."""
    task = _prepare.options(num_cpus=cpus, num_gpus=gpus)
    prepared: SearchPreparation = ray.get(task.remote(workload, probe, cpus, gpus, work_speed))
    return prepared


@ray.remote
def _prepare(workload: Workload, probe: bool, cpus: float, gpus: float, work_speed: float | None) -> Any:
    device = own_device(cpus, gpus)
    executor = workload.executor(device)
    executor.warm_up()
    settings = workload.settings
    speed = work_speed or calibrate_speed(
        executor.network.build(device),
        executor.network.traces,
        executor.network.image_shape,
        device,
        executor.recipe.precision,
        settings.recipe.batch_size,
    )
    preparation = prepare(executor, settings.ratio, settings.criterion, settings.freeze, probe)
    return SearchPreparation(preparation, speed, device_name(device), len(executor.network.steps))
