"""Dense against pruned: accuracy, size, work and latency, measured alone on one device after stage 2."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import ray
import torch
from torch import nn

from ice_ray.cluster.session import fetch
from ice_ray.cluster.workload import Workload, device_name, own_device
from ice_ray.data.placement import to_device
from ice_ray.engine.latency import ROUNDS, WARM_UP, latencies_in_turn
from ice_ray.engine.sizes import sizes
from ice_ray.engine.snapshots import Snapshot
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.guard import blaming
from ice_ray.ingest.load import StageImages

_BATCHES = (1, 64)


@dataclass(frozen=True)
class Known:
    """Accuracies on the validation images that stage 2 has measured already, percent; None where it has not."""

    dense: float | None = None
    pruned: float | None = None


def assess(
    workload: Workload, test: StageImages, snapshot: Snapshot, known: Known, cpus: float, gpus: float
) -> dict[str, Any]:
    """Measure the dense network and `snapshot` of it; the only reading of the test images.

    Returns {"dense": ..., "pruned": ..., "device": ..., "precision": ..., "latency": ...}. Of both networks: accuracies
    in percent on the deciding and on the test images, parameters, multiply-adds an image, bytes of the weights' file,
    filters of each layer that is pruned, and the median latency in ms at batch 1 and 64 with its 5th and 95th
    percentile and the number of passes. "latency" says how that was measured.
    """
    task = _assess.options(num_cpus=cpus, num_gpus=gpus)
    measured: dict[str, Any] = fetch(task.remote(workload, test, ray.put(snapshot), known, cpus, gpus))
    return measured


@ray.remote(max_calls=1)
def _assess(workload: Workload, test: StageImages, snapshot: Snapshot, known: Known, cpus: float, gpus: float) -> Any:
    with blaming(workload.own_code):
        return _measured(workload, test, snapshot, known, cpus, gpus)


def _measured(
    workload: Workload, test: StageImages, snapshot: Snapshot, known: Known, cpus: float, gpus: float
) -> dict[str, Any]:
    device = own_device(cpus, gpus)
    executor = workload.executor(device)
    executor.store.put(snapshot)
    dense = executor.network.build(device)
    pruned = executor.module(snapshot.id)
    widths = {unit.layer: unit.filters for unit in executor.network.units}
    left = {layer: len(filters) for layer, filters in executor.filters_left(snapshot.id).items()}
    facts = [
        _measure(executor, dense, workload, test, known.dense) | {"widths": widths},
        _measure(executor, pruned, workload, test, known.pruned) | {"widths": left},
    ]
    for batch in _BATCHES:
        shape, precision = executor.network.image_shape, executor.recipe.precision
        for own, times in zip(facts, latencies_in_turn([dense, pruned], shape, batch, device, precision), strict=True):
            own |= _latency(batch, times)
    return {
        "dense": facts[0],
        "pruned": facts[1],
        "device": device_name(device),
        "precision": executor.recipe.precision,
        "latency": {
            "threads": torch.get_num_threads() if device.type == "cpu" else None,
            "warm_up_passes": WARM_UP,
            "rounds": ROUNDS,
            "spread": "5th to 95th percentile of the passes",
        },
    }


def _measure(
    executor: TorchExecutor, model: nn.Module, workload: Workload, test: StageImages, known: float | None
) -> dict[str, Any]:
    device = executor.device
    decided = known if known is not None else executor.accuracy(model, to_device(workload.validation.get(), device))
    return {
        "validation_accuracy": decided,
        "test_accuracy": executor.accuracy(model, to_device(test.get(), device)),
        "validation_images": workload.validation.count,
        "test_images": test.count,
        **sizes(executor.network, model),
    }


def _latency(batch: int, times: list[float]) -> dict[str, Any]:
    cuts = statistics.quantiles(times, n=20)
    return {
        f"latency_{batch}_ms": statistics.median(times),
        f"latency_{batch}_ms_spread": [cuts[0], cuts[-1]],
        f"latency_{batch}_passes": len(times),
    }
