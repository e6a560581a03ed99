"""A pipeline of your own: ICE-Pruning that fine-tunes after every second step, whatever the drop.

python jobs/ice_prune.py --pipeline examples.pipeline:build
"""

from dataclasses import dataclass

from ice_ray import IceHyperparameters, PruningSettings
from ice_ray.pipelines.ice import IcePipeline
from ice_ray.pipelines.records import StepRecord


@dataclass(frozen=True, kw_only=True)
class EverySecondStep(IcePipeline):
    """Steps 2, 4, 6, ... are followed by a fine-tune."""

    def needs_fine_tuning(self, record: StepRecord) -> bool:
        return record.step % 2 == 0


def build(settings: PruningSettings, hyperparameters: IceHyperparameters) -> EverySecondStep:
    """What --pipeline names: from what a run prunes and how, and one trial's hyperparameters.

    The annotation says which are searched: ICE's six, or a dataclass of your own (ice_ray.hyperparameters).
    """
    return EverySecondStep(
        removal=settings.removal,
        hyperparameters=hyperparameters,
        counting=settings.counting,
        learning_rate_tolerance=settings.learning_rate_tolerance,
        fine_tune=settings.fine_tune,
    )
