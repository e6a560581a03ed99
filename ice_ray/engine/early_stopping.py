"""Looking at the drop while a fine-tune runs, to end it once it has recovered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ice_ray.data.images import ImageSet, ImageSource
from ice_ray.engine.actions import EarlyStopping
from ice_ray.engine.threshold import Threshold
from ice_ray.objective import accuracy_drop
from ice_ray.training.fine_tune import StepCheck


@dataclass(frozen=True)
class EarlyStoppingSample:
    """The looks inside epochs.

    Attributes:
        early_stopping: when, and by how much the drop must be below the threshold.
        images: what is looked at.
        original: accuracy of the dense network on them, percent: an easy sample must not end a fine-tune early.
    """

    early_stopping: EarlyStopping
    images: ImageSet
    original: float


class EarlyStopper:
    """One fine-tune's measurements.

    Args:
        until: the fine-tune may end once the drop is below it; None measures nothing.
        sample: inside epochs, too.
        validation: the validation images.
        measure: accuracy of the network as it is, percent.

    Attributes:
        images: looked at so far.
        ended_inside: whether a look inside an epoch has ended the fine-tune.
    """

    def __init__(
        self,
        until: Threshold | None,
        sample: EarlyStoppingSample | None,
        validation: ImageSource,
        measure: Callable[[ImageSource], float],
    ) -> None:
        self._until, self._sample, self._validation, self._measure = until, sample, validation, measure
        self._last: float | None = None
        self.images = 0
        self.ended_inside = False

    def enough(self) -> bool:
        """Asked after an epoch."""
        if self._until is None:
            return False
        self._last = self._accuracy(self._validation)
        return not self._until.reached(self._last)

    @property
    def step_check(self) -> StepCheck | None:
        """Asked inside epochs."""
        return None if self._sample is None else StepCheck(self._sample.early_stopping.every, self._recovered)

    def final_accuracy(self) -> float | None:
        """Of the network as the fine-tune has left it; None where nothing is measured."""
        # Nothing has been trained since the last measurement only where that was what ended the fine-tune.
        if self._until is not None and (self._last is None or self._until.reached(self._last)):
            self._last = self._accuracy(self._validation)
        return self._last

    def _recovered(self) -> bool:
        assert self._sample is not None
        assert self._until is not None
        few = self._accuracy(self._sample.images)
        drop = accuracy_drop(self._sample.original, few)
        self.ended_inside = drop < self._until.drop - self._sample.early_stopping.margin
        return self.ended_inside

    def _accuracy(self, images: ImageSource) -> float:
        self.images += len(images)
        return self._measure(images)
