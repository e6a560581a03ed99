"""Dense against pruned: accuracy, size, work and latency, measured alone on one device after stage 2."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import ray
from torch import nn

from ice_ray.cluster.session import fetch
from ice_ray.cluster.workload import Workload, device_name, own_device
from ice_ray.data.residence import bring
from ice_ray.engine.executor import Executor
from ice_ray.engine.latency import latencies
from ice_ray.engine.snapshots import Snapshot
from ice_ray.engine.target import macs
from ice_ray.ingest.load import StageImages

_BATCHES = (1, 64)


@dataclass(frozen=True)
class Known:
    """Accuracies on the deciding images that stage 2 has measured already, percent; None where it has not."""

    dense: float | None = None
    pruned: float | None = None


def assess(
    workload: Workload, report: StageImages, snapshot: Snapshot, known: Known, cpus: float, gpus: float
) -> dict[str, Any]:
    """Measure the dense network and `snapshot` of it; the only reading of the report images.

    Returns {"dense": ..., "pruned": ..., "device": ..., "precision": ...}: accuracies in percent on the deciding
    and on the report images, parameters, multiply-adds an image, median latency in ms at batch 1 and 64 with its
    5th and 95th percentile and the number of passes.
    """
    task = _assess.options(num_cpus=cpus, num_gpus=gpus)
    measured: dict[str, Any] = fetch(task.remote(workload, report, ray.put(snapshot), known, cpus, gpus))
    return measured


@ray.remote(max_calls=1)
def _assess(workload: Workload, report: StageImages, snapshot: Snapshot, known: Known, cpus: float, gpus: float) -> Any:
    device = own_device(cpus, gpus)
    executor = workload.executor(device)
    executor.store.put(snapshot)
    dense = executor.network.build(device)
    pruned = executor.module(snapshot.id)
    return {
        "dense": _measure(executor, dense, workload, report, known.dense),
        "pruned": _measure(executor, pruned, workload, report, known.pruned),
        "device": device_name(device),
        "precision": executor.recipe.precision,
    }


def _measure(
    executor: Executor, model: nn.Module, workload: Workload, report: StageImages, known: float | None
) -> dict[str, Any]:
    device = executor.device
    decided = known if known is not None else executor.accuracy(model, bring(workload.decide.get(), device))
    facts: dict[str, Any] = {
        "decide_accuracy": decided,
        "report_accuracy": executor.accuracy(model, bring(report.get(), device)),
        "decide_images": workload.decide.count,
        "report_images": report.count,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds": macs(executor.network, model),
    }
    for batch in _BATCHES:
        times = latencies(model, executor.network.image_shape, batch, device, executor.recipe.precision)
        facts[f"latency_{batch}_ms"] = statistics.median(times)
        cuts = statistics.quantiles(times, n=20)
        facts[f"latency_{batch}_ms_spread"] = [cuts[0], cuts[-1]]
        facts[f"latency_{batch}_passes"] = len(times)
    return facts
