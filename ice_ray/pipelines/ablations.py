"""ICE-Pruning without one or more of its parts (the paper's Table II)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ablations:
    """Which of ICE's parts are left in.

    Attributes:
        threshold: fine-tune only where the drop has reached it; without, after every step.
        freezing: hold layers fixed; without, all train and nothing is probed.
        scheduler: eq. 1; without, every fine-tune is at LR_base.
    """

    threshold: bool = True
    freezing: bool = True
    scheduler: bool = True

    @property
    def idle(self) -> tuple[str, ...]:
        """The hyperparameters that decide nothing without them: one value of each is as good as another."""
        names: tuple[str, ...] = ()
        if not self.threshold:
            names += ("accuracy_drop_threshold",)
        if not self.freezing:
            names += ("frozen_fraction",)
        if not self.scheduler:
            names += ("learning_rate_reduction", "midpoint_pruned_share", "steepness")
        return names
