"""How far the calibration images have come through a network, from one pruning step to the next."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from torch import nn

from ice_ray.data.batches import Batch
from ice_ray.models.passes import Entrance, Standing, reach


class Standings:
    """The activations of all batches at one entrance, held while the network before it stays as it is."""

    def __init__(self) -> None:
        self._of: Hashable = None
        self._held: list[Standing] = []

    def at(
        self,
        entrance: Entrance,
        model: nn.Module,
        of: Hashable,
        batches: Iterable[Batch],
    ) -> list[Standing]:
        """Those of every batch at an entrance, moved on from where they stood.

        Args:
            of: names the network as it stands and the images.
            batches: looked at only where they stand elsewhere.
        """
        before = self._held if self._of == of and self._held and self._leads_to(entrance) else []
        if before and before[0].entrance == entrance:
            return before
        self._of = of
        self._held = [
            reach(model, entrance, batch, before[number] if before else None)
            for number, (batch, _) in enumerate(batches)
        ]
        return self._held

    def rename(self, before: Hashable, after: Hashable) -> None:
        """What has been done to the network lies behind the entrance: it is called something else now."""
        if self._of == before:
            self._of = after

    def forget(self) -> None:
        """The network is no more."""
        self._of, self._held = None, []

    def _leads_to(self, entrance: Entrance) -> bool:
        return all(entrance.is_behind(name) for name in self._held[0].entrance.done)
