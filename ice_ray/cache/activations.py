"""How far the calibration images have come through a network, from one pruning step to the next.

Whoever comes from elsewhere (a step that another process has taken, a fine-tune) runs through what lies before anew, on
the clock.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from torch import nn

from ice_ray.data.batches import Batch
from ice_ray.models.resume import Activations, ResumePoint, reach


class ActivationCache:
    """The activations of all batches at one resume point, held while the network before it stays as it is."""

    def __init__(self) -> None:
        self._of: Hashable = None
        self._held: list[Activations] = []

    def at(
        self,
        resume_point: ResumePoint,
        model: nn.Module,
        of: Hashable,
        batches: Iterable[Batch],
    ) -> list[Activations]:
        """Those of every batch at a resume point, moved on from where they stood.

        Args:
            of: names the network as it stands and the images.
            batches: looked at only where they stand elsewhere.
        """
        held: list[Activations] = self._held if self._of == of else []
        if held and held[0].resume_point == resume_point:
            return held
        moves_on = bool(held) and resume_point.follows(held[0].resume_point)
        self.forget()  # a pass that fails leaves nothing that could be mistaken for another network's
        if not moves_on:
            held = []
        for number, (batch, _) in enumerate(batches):
            if moves_on:
                held[number] = reach(model, resume_point, batch, held[number])
            else:
                held.append(reach(model, resume_point, batch))
        if held:  # this process may have no image
            self._of, self._held = of, held
        return held

    def rename(self, before: Hashable, after: Hashable, removed: Mapping[str, Any]) -> None:
        """Filters have been removed, by layer, and what lies behind the first of them repaired: what stands before it
        stands in the network that this has led to.
        """
        if self._of == before and not any(self._held[0].resume_point.is_behind(layer) for layer in removed):
            self._of = after
        else:
            self.forget()

    def forget(self) -> None:
        """Hold nothing."""
        self._of, self._held = None, []
