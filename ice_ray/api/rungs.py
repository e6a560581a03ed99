"""From the dense network down the rungs of a target, of which there is most often one: a result for each."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ice_ray.api.result import Result
from ice_ray.data.images import ImageSource, PruningData
from ice_ray.data.placement import to_device
from ice_ray.engine.actions import SnapshotId
from ice_ray.engine.config import BATCH
from ice_ray.engine.cost import Cost
from ice_ray.engine.latency import latencies_in_turn
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.sizes import sizes
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.environment import environment
from ice_ray.models.copies import copied
from ice_ray.models.frozen import freeze
from ice_ray.pipelines.base import Pipeline
from ice_ray.pipelines.harm import Harm, harms_of
from ice_ray.pipelines.records import Preparation, StepRecord
from ice_ray.progress import progress_bar
from ice_ray.training.fine_tune import Recipe

_CPU = torch.device("cpu")
_PASSES, _SECONDS = 25, 0.5
"""Of the latencies of a ladder's rungs."""


@dataclass(frozen=True)
class Rung:
    """A run that goes on from what the rung above has come to; the first one begins with the dense network.

    Attributes:
        pipeline: with this rung's options.
        network: whose steps are this rung's.
        target: as text; None where a ratio says how much goes.
        found: what it has led to, in words.
    """

    pipeline: Pipeline
    network: DenseNetwork
    target: str | None
    found: str | None = None


@dataclass(frozen=True)
class Walk:
    """What the rungs have in common.

    Attributes:
        data: images, on the CPU.
        callback: called after every step.
        facts: what the description of every result says.
        options: of the run, likewise, beside those of the pipeline.
    """

    data: PruningData
    recipe: Recipe
    seed: int
    device: torch.device
    callback: Callable[[StepRecord], object] | None
    facts: Mapping[str, Any]
    options: Mapping[str, Any]

    def down(
        self, rungs: list[Rung], progress: bool | None, prepared: Callable[[Preparation], None]
    ) -> Iterator[tuple[Result, list[Harm]]]:
        """The result of each rung, as soon as it is done, and what training has made worse on it.

        Args:
            progress: whether a bar shows the steps.
            prepared: told what is known of the dense network, before anything is pruned.
        """
        first, result = rungs[0], None
        executor = self._executor(first)
        retrains = bool(first.pipeline.hyperparameters.final_epochs)
        with _Bar(sum(rung.pipeline.length(len(rung.network.steps)) + retrains for rung in rungs), progress) as bar:
            executor.warm_up(first.pipeline.trains)
            preparation = first.pipeline.prepare(executor, first.pipeline.freezes)
            prepared(preparation)
            state = first.pipeline.begin(executor)
            for rung in rungs:
                method = rung.pipeline
                if result is not None:
                    above = executor.commit(state.snapshot)
                    executor = self._executor(rung)
                    executor.store.put(above)
                    state = method.begin_below(executor, above.id, result.accuracy)
                    preparation = dataclasses.replace(preparation, allocation=Cost())  # the first rung's expense
                while not method.is_done(executor, state):
                    state = method.advance(executor, state, preparation)
                    if state.kept:
                        executor.commit(state.snapshot)
                        executor.store.keep_only(state.kept)
                    bar.took(state.records[-1])
                    if self.callback is not None:
                        self.callback(state.records[-1])
                pruned = state
                state, _ = method.finish(executor, state, preparation)
                known = pruned.accuracy if state is pruned and self._is_over_all(pruned.records[-1]) else None
                module, description = self._finished(rung, executor, state.snapshot, preparation, known, len(rungs) > 1)
                seconds = state.pruning_seconds("wall", 1.0)
                result = Result(module, state.records, seconds, description, result)
                kind, final = type(method.hyperparameters), method.config.final_training
                yield result, harms_of(state.records, kind, final, result.accuracy, len(self.data.validation))

    def _is_over_all(self, record: StepRecord) -> bool:
        """Whether the accuracy of a record that stands is over all validation images, with nothing done since."""
        return record.accepted and not record.fine_tuned and record.images_measured == len(self.data.validation)

    def _executor(self, rung: Rung) -> TorchExecutor:
        return TorchExecutor(rung.network, self.data, self.recipe, self.seed, self.device)

    def _finished(
        self,
        rung: Rung,
        executor: TorchExecutor,
        snapshot: SnapshotId,
        preparation: Preparation,
        known: float | None,
        is_timed: bool,
    ) -> tuple[nn.Module, dict[str, Any]]:
        """A rung's model, and what `model.json` says of it.

        Args:
            known: its accuracy, where that has been measured.
        """
        network, validation = rung.network, self.data.validation
        module = freeze(copied(executor.module(snapshot)), network.frozen)
        kept = executor.filters_left(snapshot)
        network.tie(module)
        accuracy = executor.accuracy(module, to_device(validation, self.device)) if known is None else known
        dense = network.build(self.device if is_timed else _CPU)
        figures = [
            _figures(network, dense, preparation.original_accuracy, validation),
            _figures(network, module, accuracy, validation),
        ]
        if is_timed:
            shape, precision = network.image_shape, self.recipe.precision
            times = latencies_in_turn([dense, module], shape, BATCH, self.device, precision, _PASSES, _SECONDS)
            for own, each in zip(figures, times, strict=True):
                own["latency_64_ms"] = statistics.median(each)
        method = rung.pipeline
        return module, {
            **self.facts,
            "widths": {layer: len(filters) for layer, filters in kept.items()},
            "kept": {layer: list(filters) for layer, filters in kept.items()},
            "frozen": list(network.frozen),
            "layout": network.layout,
            "metrics": {
                "dense": figures[0],
                "pruned": figures[1],
                "device": str(self.device),
                "precision": self.recipe.precision,
            },
            "hyperparameters": method.hyperparameters.plain(),
            "config": {**self.options, "target": rung.target, "found": rung.found, **dataclasses.asdict(method.config)},
            **environment(),
        }


class _Bar:
    """The steps as they are done: which layers, the accuracy after them, and the drop.

    Args:
        total: steps, at the most.
        shown: without it where somebody looks.
    """

    def __init__(self, total: int, shown: bool | None) -> None:
        self._bar = progress_bar(total, "preparing", "step", shown)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def took(self, record: StepRecord) -> None:
        self._bar.set_description(record.layers, refresh=False)
        self._bar.set_postfix(accuracy=f"{record.accuracy:.2f}%", drop=f"{record.drop:.2f}", refresh=False)
        self._bar.update()


def _figures(network: DenseNetwork, model: nn.Module, accuracy: float, validation: ImageSource) -> dict[str, Any]:
    """Of one form of the network, under the names that a run's assessment has for them."""
    return {"validation_accuracy": accuracy, "validation_images": len(validation), **sizes(network, model)}
