"""The numbers that a search looks for: those of ICE-Pruning, and what every pipeline's have in common."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Self

from ice_ray.errors import UserError


def searched(symbol: str, *, logarithmic: bool = False, whole: bool = False, default: Any = dataclasses.MISSING) -> Any:
    """A field of hyperparameters.

    Args:
        symbol: short, for people.
        logarithmic: whether its size rather than its difference matters, as with a rate.
        whole: whether samplers take whole numbers only.
        default: its value where a space does not name it; such a field is given by name.
    """
    by_name = default is not dataclasses.MISSING
    return dataclasses.field(
        default=default, kw_only=by_name, metadata={"symbol": symbol, "logarithmic": logarithmic, "whole": whole}
    )


@dataclass(frozen=True)
class Hyperparameters:
    """Base class: a pipeline's own hyperparameters are a frozen dataclass of numbers, each made by `searched`.

    Those with a default need not be in a space. These are every pipeline's:

    Attributes:
        final_epochs: of one retraining after the last step, with a linear schedule and nothing held fixed; a part of
            one will do. The paper has none.
        final_learning_rate: the greatest of that retraining. Above 0 where there is one.

    Raises:
        UserError: a value outside its range, named with the bound it breaks.
    """

    final_epochs: float = searched("final epochs", default=0.0)
    final_learning_rate: float = searched("final LR", logarithmic=True, default=0.0)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise UserError(f"hyperparameter {field.name}={value!r} is not a finite number")
            object.__setattr__(self, field.name, float(value))
        self._check("final_epochs", self.final_epochs >= 0, "at least 0")
        least = "above 0 where there are final_epochs" if self.final_epochs else "at least 0"
        self._check("final_learning_rate", self.final_learning_rate > 0 or not self.final_epochs, least)
        self._check("final_learning_rate", self.final_learning_rate >= 0, least)

    def _check(self, name: str, holds: bool, bound: str) -> None:
        if not holds:
            raise UserError(f"hyperparameter {name}={getattr(self, name):g} must be {bound}")

    @property
    def freezes(self) -> bool:
        """Whether a run with them holds layers fixed, and so needs the freezing probe."""
        return False

    @property
    def settled(self) -> Self:
        """The same without the rate of a retraining that there is none of."""
        return self if self.final_epochs else dataclasses.replace(self, final_learning_rate=0.0)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """All of them, in order."""
        return (*cls.required(), *(field.name for field in dataclasses.fields(cls) if field.name not in cls.required()))

    @classmethod
    def required(cls) -> tuple[str, ...]:
        """Those without a default."""
        return tuple(field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING)

    @classmethod
    def defaults(cls) -> dict[str, float]:
        """Of those that have one."""
        found = {field.name: field.default for field in dataclasses.fields(cls)}
        return {name: float(value) for name, value in found.items() if value is not dataclasses.MISSING}

    @classmethod
    def logarithmic(cls) -> frozenset[str]:
        """Those that are measured on a logarithmic scale."""
        return frozenset(field.name for field in dataclasses.fields(cls) if field.metadata.get("logarithmic"))

    @classmethod
    def whole(cls) -> frozenset[str]:
        """Those that are whole numbers."""
        return frozenset(field.name for field in dataclasses.fields(cls) if field.metadata.get("whole"))

    @classmethod
    def symbols(cls) -> dict[str, str]:
        """A short name of each, for people."""
        return {field.name: field.metadata.get("symbol", field.name) for field in dataclasses.fields(cls)}

    @classmethod
    def from_mapping(cls, values: object) -> Self:
        """Built from a mapping of their names.

        Raises:
            UserError: not a mapping, or names missing or unknown.
        """
        check_names(cls, values, "hyperparameters")
        return cls(**values)  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, float]:
        """The values by name."""
        return {name: getattr(self, name) for name in self.names()}

    def __str__(self) -> str:
        fields = {field.name: field for field in dataclasses.fields(self)}
        shown = [fields[name] for name in self.names() if getattr(self, name) != fields[name].default]
        return ", ".join(f"{field.metadata.get('symbol', field.name)} {getattr(self, field.name):g}" for field in shown)


def check_names(kind: type[Hyperparameters], values: object, origin: str) -> None:
    """Whether a mapping has all names that must be there, and no other.

    Raises:
        UserError: what is missing or unknown.
    """
    if not isinstance(values, dict):
        raise UserError(f"{origin} must be a mapping of {', '.join(sorted(kind.required()))}")
    missing, unknown = set(kind.required()) - set(values), {str(key) for key in values} - set(kind.names())
    if missing or unknown:
        said = [f"missing {', '.join(sorted(missing))}"] if missing else []
        said += [f"unknown {', '.join(sorted(unknown))}"] if unknown else []
        raise UserError(f"{origin}: {'; '.join(said)}")


@dataclass(frozen=True)
class IceHyperparameters(Hyperparameters):
    """ICE-Pruning's (section III of the paper; the paper's symbols in parentheses).

    Attributes:
        accuracy_drop_threshold: (theta) drop against the ORIGINAL accuracy, in percentage points, from which on
            a pruning step is followed by a fine-tune. At least 0.
        frozen_fraction: (eta) share of the freezable convolutions held fixed while fine-tuning, in [0, 1].
        base_learning_rate: (LR_base) bound of the learning rate for the unpruned model. Above 0.
        learning_rate_reduction: (Delta) how far the bound sinks while pruning, in (0, base_learning_rate).
        midpoint_pruned_share: (p) pruned share of the parameters at which half of the reduction is reached,
            in (0, 0.5].
        steepness: (beta) how sudden the reduction is. Above 0.
    """

    accuracy_drop_threshold: float = searched("theta")
    frozen_fraction: float = searched("eta")
    base_learning_rate: float = searched("LR", logarithmic=True)
    learning_rate_reduction: float = searched("Delta", logarithmic=True)
    midpoint_pruned_share: float = searched("p")
    steepness: float = searched("beta")

    def __post_init__(self) -> None:
        super().__post_init__()
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

    @property
    def freezes(self) -> bool:
        return self.frozen_fraction > 0
