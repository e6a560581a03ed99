"""The options of what is pruned."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

from ice_ray.address import at_home
from ice_ray.errors import FieldError, require, require_kinds
from ice_ray.files import parse_yaml
from ice_ray.pruning.amounts import parse_ratios
from ice_ray.pruning.selection import Selection


@dataclass(frozen=True)
class PruneConfig:
    """Which layers are pruned."""

    include: tuple[str, ...] = ()
    """Only layers matching one of these patterns (layer3.*), stems and heads too. [default: all within blocks]"""
    exclude: tuple[str, ...] = ()
    """No layer matching one of these patterns."""

    def __post_init__(self) -> None:
        require_kinds(self)
        for each in fields(self):
            is_word = isinstance(getattr(self, each.name), (str, dict))
            require(self, each.name, not is_word, "must be a tuple of words")

    @property
    def selection(self) -> Selection:
        """Which layers."""
        return Selection(tuple(self.include), tuple(self.exclude))


@dataclass(frozen=True)
class LayerwisePruneConfig(PruneConfig):
    """Which layers are pruned, and how far."""

    ratios: tuple[str, ...] = ()
    """PATTERN=RATIO for layers that lose another share than --ratio, the first match counts, 0 spares a layer; or a
    YAML file that maps patterns to ratios."""
    round_to: int | None = None
    """Keep widths in multiples of this (8 or 16: odd widths are slower on real hardware), rounded up. [default: 1; for
    the target onnx-latency 4, where that can reach it]"""
    coupled: bool | None = None
    """Whether filters go that residual sums, concatenations and multiplications tie to other layers', and those of
    stems, transitions and heads: yes or no. [default: no]"""
    heads: bool | None = None
    """Whether heads of attentions go, with their queries, keys and values: yes or no. [default: no]"""

    @property
    def selection(self) -> Selection:
        """Which layers."""
        return replace(super().selection, coupled=bool(self.coupled), heads=bool(self.heads))

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "round_to", self.round_to is None or self.round_to >= 1, "must be at least 1")
        # A file is read at once: from here on, on whatever machine, what it said holds.
        words = [word for given in self.ratios for word in self._words(str(given))]
        object.__setattr__(self, "ratios", tuple(words))
        _ = self.by_layer

    @property
    def by_layer(self) -> tuple[tuple[str, float], ...]:
        """(pattern of layers, ratio), in order.

        Raises:
            FieldError: a ratio that is no number.
        """
        found = []
        for word in self.ratios:
            pattern, _, ratio = word.rpartition("=")
            try:
                found.append((pattern, float(ratio)))
            except ValueError as error:
                raise FieldError(type(self), "ratios", f"'{word}': {pattern} has '{ratio}', not a number") from error
        return tuple(found)

    def _words(self, given: str) -> list[str]:
        if "=" in given and not given.endswith((".yaml", ".yml")):
            return [given]
        path = Path(at_home(given))
        if not path.is_file():
            raise FieldError(type(self), "ratios", f"'{path}': no such file")
        origin = f"ratios '{path}'"
        ratios = parse_ratios(parse_yaml(path.read_text(errors="replace"), origin), origin)
        return [f"{pattern}={ratio!r}" for pattern, ratio in ratios]
