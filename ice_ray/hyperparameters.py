"""The six numbers that ICE-Pruning searches."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from ice_ray.errors import UserError


@dataclass(frozen=True)
class Hyperparameters:
    """ICE-Pruning's hyperparameters (section III of the paper; the paper's symbols in parentheses).

    Attributes:
        accuracy_drop_threshold: (theta) drop against the ORIGINAL accuracy, in percentage points, from which on
            a pruning step is followed by a fine-tune. At least 0.
        frozen_fraction: (eta) share of the freezable convolutions held fixed while fine-tuning, in [0, 1].
        base_learning_rate: (LR_base) bound of the learning rate for the unpruned model. Above 0.
        learning_rate_reduction: (Delta) how far the bound sinks while pruning, in (0, base_learning_rate).
        midpoint_pruned_share: (p) pruned share of the parameters at which half of the reduction is reached,
            in (0, 0.5].
        steepness: (beta) how sudden the reduction is. Above 0.

    Raises:
        UserError: a value outside its range, named with the bound it breaks.
    """

    accuracy_drop_threshold: float
    frozen_fraction: float
    base_learning_rate: float
    learning_rate_reduction: float
    midpoint_pruned_share: float
    steepness: float

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise UserError(f"hyperparameter {field.name}={value!r} is not a finite number")
            object.__setattr__(self, field.name, float(value))
        self._check("accuracy_drop_threshold", self.accuracy_drop_threshold >= 0, "at least 0 (percentage points)")
        self._check("frozen_fraction", 0 <= self.frozen_fraction <= 1, "within [0, 1]")
        self._check("base_learning_rate", self.base_learning_rate > 0, "above 0")
        self._check(
            "learning_rate_reduction",
            0 < self.learning_rate_reduction < self.base_learning_rate,
            f"within (0, base_learning_rate={self.base_learning_rate:g})",
        )
        self._check("midpoint_pruned_share", 0 < self.midpoint_pruned_share <= 0.5, "within (0, 0.5]")
        self._check("steepness", self.steepness > 0, "above 0")

    def _check(self, name: str, holds: bool, bound: str) -> None:
        if not holds:
            raise UserError(f"hyperparameter {name}={getattr(self, name):g} must be {bound}")

    @classmethod
    def from_mapping(cls, values: object) -> Hyperparameters:
        """Built from a mapping of exactly the six names.

        Raises:
            UserError: not a mapping, or names missing or unknown.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, dict):
            raise UserError(f"hyperparameters must be a mapping of {', '.join(sorted(names))}")
        missing, unknown = names - set(values), {str(key) for key in values} - names
        if missing or unknown:
            said = [f"missing {', '.join(sorted(missing))}"] if missing else []
            said += [f"unknown {', '.join(sorted(unknown))}"] if unknown else []
            raise UserError(f"hyperparameters: {'; '.join(said)}")
        return cls(**values)

    def as_dict(self) -> dict[str, float]:
        """The six values by name."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return (
            f"theta {self.accuracy_drop_threshold:g}, eta {self.frozen_fraction:g}, "
            f"LR {self.base_learning_rate:g}, Delta {self.learning_rate_reduction:g}, "
            f"p {self.midpoint_pruned_share:g}, beta {self.steepness:g}"
        )
