"""The options of what is pruned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ice_ray.address import at_home
from ice_ray.errors import UserError
from ice_ray.files import parse_yaml
from ice_ray.pruning.amounts import Amounts, parse_ratios
from ice_ray.pruning.selection import Selection


@dataclass(frozen=True)
class PruneConfig:
    """Which layers are pruned, and how far."""

    include: tuple[str, ...] = ()
    """Only layers matching one of these patterns (layer3.*), stems and heads too. [default: all within blocks]"""
    exclude: tuple[str, ...] = ()
    """No layer matching one of these patterns."""
    ratios: Path | None = None
    """YAML file: pattern of layers to ratio, the first match counts; --ratio holds for the rest, 0 spares a layer."""
    round_to: int = 1
    """Keep widths in multiples of this (8 or 16: odd widths are slower on real hardware), rounded up."""
    calibration_images: int = 1000
    """Training images that criteria which look at activations, and repairs, look at."""
    reconstruction_epochs: float = 5.0
    """Passes over them, for every step, of --repair reconstruction."""

    def __post_init__(self) -> None:
        if self.ratios is not None:
            object.__setattr__(self, "ratios", Path(at_home(str(self.ratios))))
        if self.round_to < 1:
            raise UserError(f"--prune.round-to {self.round_to} must be at least 1")
        if self.calibration_images < 1:
            raise UserError(f"--prune.calibration-images {self.calibration_images} must be at least 1")
        if not 0 < self.reconstruction_epochs < math.inf:
            raise UserError(f"--prune.reconstruction-epochs {self.reconstruction_epochs} must be above 0")

    @property
    def selection(self) -> Selection:
        """Which layers."""
        return Selection(tuple(self.include), tuple(self.exclude))

    def amounts(self, ratio: float) -> Amounts:
        """How far, where `ratio` holds for what the file does not name.

        Raises:
            UserError: the file is not there or no mapping of patterns to numbers.
        """
        return Amounts(ratio, () if self.ratios is None else _read(self.ratios), self.round_to)


def _read(path: Path) -> tuple[tuple[str, float], ...]:
    if not path.is_file():
        raise UserError(f"--prune.ratios '{path}': no such file")
    return parse_ratios(parse_yaml(path.read_text(errors="replace"), f"--prune.ratios '{path}'"), str(path))
