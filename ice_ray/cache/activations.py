"""The activations of the calibration images at a resume point, kept from one pruning step to the next.

After a step that another process has carried out, or a fine-tune, the layers before the point are run anew; that time
counts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from torch import nn

from ice_ray.data.batches import Batch
from ice_ray.models.resume import Activations, ResumePoint, reach


class ActivationCache:
    """The activations of all batches at one resume point, valid while the network before it is unchanged."""

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
        """The activations of every batch at a resume point, continued from the point before where those are held.

        Args:
            of: names the network as it is now, and the images.
            batches: read only where activations are not held at this point.
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

    def rename(self, before: Hashable, after: Hashable, cut: Iterable[str]) -> None:
        """Filters of these layers were removed, and the layers behind repaired: activations from before the first of
        them are valid in the resulting network, whose name is `after`.
        """
        if self._of == before and not any(self._held[0].resume_point.is_behind(layer) for layer in cut):
            self._of = after
        else:
            self.forget()

    def forget(self) -> None:
        self._of, self._held = None, []
