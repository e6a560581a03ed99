"""Which of the prunable layers to prune, and which of a layer's filters."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ice_ray.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Selection:
    """Patterns of module paths, as in a shell (`layer3.*`).

    Attributes:
        include: only layers that match one of these, stems and heads too; without any, all that lie within a block.
        exclude: none that matches one of these.
        coupled: whether filters go that are tied to other layers' (by sums, concatenations, multiplications), and those
            that are read outside their block (of stems, transitions and heads).
        heads: whether heads of attentions go.
        faulty: (layer, reason) of layers whose removal was tried and went wrong; never pruned.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    coupled: bool = False
    heads: bool = False
    faulty: tuple[tuple[str, str], ...] = ()

    def choose(self, possible: Sequence[str], usual: Sequence[str], refused: Mapping[str, str]) -> set[str]:
        """The layers to prune.

        Args:
            possible: all whose filters may go.
            usual: those of them that are pruned unless patterns say otherwise.
            refused: of other layers, why theirs may not.

        Raises:
            UserError: a pattern that matches nothing possible.
        """
        for option, patterns in (("include", self.include), ("exclude", self.exclude)):
            for pattern in patterns:
                if not fnmatch.filter(possible, pattern):
                    raise UserError(
                        f"prune.{option} '{pattern}' matches no prunable layer{_why(pattern, possible, refused)}"
                    )
        included = _matching(possible, self.include) if self.include else set(usual)
        return included - _matching(possible, self.exclude)


def _matching(layers: Sequence[str], patterns: Sequence[str]) -> set[str]:
    return {layer for pattern in patterns for layer in fnmatch.filter(layers, pattern)}


def _why(pattern: str, possible: Sequence[str], refused: Mapping[str, str]) -> str:
    matched = fnmatch.filter(refused, pattern)
    if matched:
        return f": {matched[0]} cannot be pruned, {refused[matched[0]]}"
    return f" ({nearest(pattern, list(possible))[:300]})" if possible else ""


def lowest(scores: Tensor, count: int, groups: int = 1) -> tuple[int, ...]:
    """Indices (sorted) of the `count` lowest scores; among equals the earlier filter goes first.

    With groups, filters go alike from as many equal runs: the places whose scores, summed
    over runs, are lowest.
    """
    runs = scores.view(groups, -1)
    order = runs.sum(dim=0).argsort(stable=True)
    positions = order[: count // groups].tolist()
    return tuple(sorted(position + start for position in positions for start in range(0, len(scores), runs.shape[1])))
