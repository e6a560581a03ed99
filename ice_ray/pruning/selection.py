"""Which of the prunable layers to prune."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ice_ray.errors import UserError, nearest


@dataclass(frozen=True)
class Selection:
    """Patterns of module paths, as in a shell (`layer3.*`).

    Attributes:
        include: only layers that match one of these, stems and heads too; without any, all that lie within a block.
        exclude: none that matches one of these.
        faulty: (layer, reason) of layers whose removal was tried and went wrong; never pruned.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
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
