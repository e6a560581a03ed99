"""The options of the job that shows what can be pruned in a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from ice_ray.config.run import check_image_size
from ice_ray.engine.target import parse_target
from ice_ray.errors import UserError
from ice_ray.pruning.config import LayerwisePruneConfig
from ice_ray.training.precision import PrecisionChoice

_MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class InspectConfig:
    """Show the prunable layers of a model, their widths before and after, parameters and multiply-adds.

    Nothing is trained and nothing is written; weights are not needed.
    """

    model: str
    """As for jobs/ice_prune.py: cifar-resnet56, torchvision:resnet50, timm:NAME, package.module:function."""
    image_size: int = 32
    """Images are this many pixels square (224 for most models of ImageNet)."""
    num_classes: int = 10
    """Classes that the model tells apart."""
    ratio: float = 0.5
    """Share of the filters to remove, inside (0, 1)."""
    target: str | None = None
    """In place of --ratio: macs=0.5, params=0.4 or latency=0.6, the share of the dense model to keep."""
    prune: LayerwisePruneConfig = field(default_factory=LayerwisePruneConfig)
    precision: PrecisionChoice = "auto"
    """Arithmetic with which latency is measured."""

    def __post_init__(self) -> None:
        if self.target is not None:
            parse_target(self.target)
        check_image_size(self.image_size)
        if not 2 <= self.num_classes <= _MOST_CLASSES:
            raise UserError(f"--num-classes {self.num_classes} must be at least 2 and at most {_MOST_CLASSES}")
