"""The options of every fine-tune."""

from __future__ import annotations

from dataclasses import dataclass

from ice_ray.errors import UserError
from ice_ray.training.fine_tune import Recipe
from ice_ray.training.schedules import Schedule


@dataclass(frozen=True)
class FineTuneConfig:
    """How fine-tunes are done, in both stages."""

    schedule: Schedule = "constant"
    """Learning rate inside a fine-tune, under eq. 1's bound: constant (the paper); cosine, to nothing at its end; or
    linear, the same after a tenth of warming up."""
    distil: bool = True
    """Learn from the unpruned model too (the paper does on CIFAR-10)."""
    temperature: float = 2.0
    """T of the distillation."""
    distil_weight: float = 1.0
    """Weight of the distillation beside the cross entropy."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes, in [0, 1)."""

    check_every: int | None = None
    """Look at the drop every so many SGD steps of a fine-tune, and end it once it has recovered. [default: never]"""
    check_images: int = 500
    """Validation images of such a look."""
    check_margin: float = 0.5
    """Points by which the drop on them must be below the threshold."""

    def __post_init__(self) -> None:
        self.recipe(2)
        if self.check_every is not None and self.check_every < 1:
            raise UserError(f"--fine-tune.check-every {self.check_every} must be at least 1")
        if self.check_images < 1:
            raise UserError(f"--fine-tune.check-images {self.check_images} must be at least 1")

    def recipe(self, batch_size: int) -> Recipe:
        """What every process is told; precision is resolved on its device.

        Raises:
            UserError: a value outside its range.
        """
        return Recipe(
            batch_size=batch_size,
            distil=self.distil,
            temperature=self.temperature,
            distil_weight=self.distil_weight,
            label_smoothing=self.label_smoothing,
        )
