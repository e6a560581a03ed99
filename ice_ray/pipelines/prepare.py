"""What comes before the first step: the original accuracy and the freezing probe (section III-B)."""

from __future__ import annotations

from dataclasses import dataclass

from ice_ray.engine.actions import CompareWeights, FineTune, Measure, Prune
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.pipelines.records import Preparation
from ice_ray.pipelines.removal_choice import RemovalRule, choose_removal
from ice_ray.pruning.freezing import WeightChange, rank_by_change


@dataclass(frozen=True)
class FreezeConfig:
    """How the layers to freeze are found.

    Attributes:
        change: how weight change is measured: l1 (the paper's text), l2 or norm-difference (the authors' program).
            With l2 runs end several points lower: benchmarks/results/freeze_measure.md.
        probe_learning_rate: of the probe's one epoch; eq. 1 has no part in it.
        stem: hold fixed, too, what lies below the lowest layer that is left to train (stem and shortcuts, which else
            always train), so that the backward pass ends there.
    """

    change: WeightChange = "l1"
    probe_learning_rate: float = 1e-3
    stem: bool = False


def prepare(executor: TorchExecutor, removal: RemovalRule, freeze: FreezeConfig, probe: bool) -> Preparation:
    """Measure the dense network, then prune its first step at the full ratio, fine-tune one epoch and rank the layers.

    The probe's network is thrown away. It depends on none of the six hyperparameters, so one serves every trial.

    Args:
        probe: whether any run will freeze; without it the ranking is empty and nothing is trained.
    """
    original = executor.run(executor.root, Measure())
    changes: dict[str, float] = {}
    seconds = 0.0
    if probe:
        choice = choose_removal(executor, executor.root, 1, removal)
        pruned = executor.run(executor.root, Prune(choice.removed))
        executor.commit(pruned.snapshot)
        tuned = executor.run(pruned.snapshot, FineTune(("probe",), freeze.probe_learning_rate, 1, "constant", ()))
        compared = executor.run(tuned.snapshot, CompareWeights(pruned.snapshot, freeze.change))
        executor.store.keep_only(())
        changes = compared.value
        seconds = sum(cost.wall_seconds for cost in (choice.cost, pruned.cost, tuned.cost, compared.cost))
    ranking = rank_by_change(changes)
    return Preparation(original.value.accuracy, changes, ranking, original.cost.wall_seconds, seconds)
