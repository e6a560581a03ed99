"""What a run prunes and how, apart from the six hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass, field

from ice_ray.engine.actions import Counting
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.pipelines.ice import IcePipeline
from ice_ray.pipelines.prepare import FreezeConfig
from ice_ray.training.fine_tune import Recipe


@dataclass(frozen=True)
class PruningSettings:
    """The same for every trial of a search and for the replay of its winner.

    Attributes:
        ratio: share of each unit's filters to remove, inside (0, 1).
        criterion: by name.
        seed: every random choice comes from it.
        recipe: of fine-tunes; its precision resolved for the device.
        counting: what eq. 1's alpha counts.
        learning_rate_tolerance: step of the logarithmic grid of rates.
        freeze: how layers to freeze are found.
    """

    ratio: float
    criterion: str = "l1"
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)
    counting: Counting = "parameters"
    learning_rate_tolerance: float = 1e-3
    freeze: FreezeConfig = field(default_factory=FreezeConfig)

    def pipeline(self, hyperparameters: Hyperparameters, epochs: int = 1, final_epochs: int = 0) -> IcePipeline:
        """The pipeline of one run."""
        return IcePipeline(
            self.ratio,
            self.criterion,
            hyperparameters,
            self.counting,
            self.learning_rate_tolerance,
            epochs,
            final_epochs,
        )
