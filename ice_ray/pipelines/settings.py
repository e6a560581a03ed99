"""What a run prunes and how, apart from the six hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass, field

from ice_ray.engine.actions import Counting
from ice_ray.models.layout import Layout
from ice_ray.pipelines.aap import AapConfig
from ice_ray.pipelines.ablations import Ablations
from ice_ray.pipelines.base import FineTunePlan
from ice_ray.pipelines.imp import ImpConfig
from ice_ray.pipelines.prepare import FreezeConfig
from ice_ray.pipelines.removal_choice import RemovalRule
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.selection import Selection
from ice_ray.repair import RepairKind
from ice_ray.training.fine_tune import Recipe


@dataclass(frozen=True)
class PruningSettings:
    """The same for every trial of a search and for the replay of its winner.

    Attributes:
        amounts: how many filters go from each layer.
        selection: which layers are pruned.
        layout: of the network in memory; without one, it is found by trying.
        criterion: by name.
        calibration_images: training images that criteria and repairs look at.
        reconstruction_epochs: passes over those of a repair that reconstructs.
        repair: repair after every removal.
        pipeline: by name.
        seed: every random choice comes from it.
        recipe: of fine-tunes; its precision resolved for the device.
        fine_tune: epochs and schedule of the fine-tunes.
        counting: what alpha of eq. 1 counts.
        learning_rate_tolerance: step of the logarithmic grid of rates.
        freeze: how layers to freeze are found.
        decision_error: how probable a wrong answer to the threshold's question may be.
        ablations: which of ICE's parts are left in.
        aap, imp: of the pipelines of these names.
    """

    amounts: Amounts = Amounts(0.5)
    selection: Selection = Selection()
    criterion: str = "l1"
    calibration_images: int = 1000
    reconstruction_epochs: float = 5.0
    repair: RepairKind = "none"
    pipeline: str = "ice"
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)
    fine_tune: FineTunePlan = FineTunePlan()
    counting: Counting = "parameters"
    learning_rate_tolerance: float = 1e-3
    freeze: FreezeConfig = field(default_factory=FreezeConfig)
    decision_error: float = 0.0
    ablations: Ablations = Ablations()
    aap: AapConfig = AapConfig()
    imp: ImpConfig = ImpConfig()
    layout: Layout | None = None

    @property
    def removal(self) -> RemovalRule:
        """Which filters a step removes."""
        return RemovalRule(self.amounts, self.criterion, self.calibration_images, self.reconstruction_epochs)
