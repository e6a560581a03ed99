"""What a stage prunes and how: its pipeline with that one's options, apart from the hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ice_ray.models.layout import Layout
from ice_ray.pipelines.base import PipelineConfig
from ice_ray.pipelines.ice import IceConfig
from ice_ray.pruning.amounts import Allocation, Amounts
from ice_ray.pruning.selection import Selection
from ice_ray.training.config import Precision
from ice_ray.training.fine_tune import Recipe


@dataclass(frozen=True)
class PruningSettings:
    """The same for every trial of a search; another for the replay of its winner.

    Attributes:
        pipeline: by name.
        config: the pipeline's options.
        batch_size: images per SGD step over all processes together.
        seed: every random choice comes from it.
        selection: which layers are pruned, faults found by trying included; without one, as the options say.
        layout: of the network in memory; without one, it is found by trying.
        allocation: widths that have been found for a target; of a ladder, for its last rung, as is the options' ratio.
        rung: of a ladder, how many filters go on this rung.
    """

    pipeline: str = "ice"
    config: PipelineConfig = field(default_factory=IceConfig)
    batch_size: int = 128
    seed: int = 0
    selection: Selection | None = None
    layout: Layout | None = None
    allocation: Allocation | None = None
    rung: Amounts | None = None

    @property
    def amounts(self) -> Amounts:
        """How many filters go from each layer."""
        return replace(self.config.amounts, allocation=self.allocation)

    def recipe(self, precision: Precision) -> Recipe:
        """How fine-tunes are done, on a device of that precision."""
        return Recipe(self.batch_size, self.config.fine_tune, precision=precision)
