"""The numbers that a search looks for: those of ICE-Pruning, and what every pipeline's have in common."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from ice_ray.errors import UserError

NEVER = math.inf
"""The value of a hyperparameter that is never reached; `never` in files and for people."""


def spelled(value: float | str) -> str:
    """A value for people."""
    return value if isinstance(value, str) else "never" if value == NEVER else f"{value:g}"


def searched(
    symbol: str,
    *,
    logarithmic: bool = False,
    whole: bool = False,
    may_be_never: bool = False,
    of: str = "",
    default: Any = dataclasses.MISSING,
    by_name: bool | None = None,
) -> Any:
    """A field of hyperparameters.

    Args:
        symbol: short, for people.
        logarithmic: whether its size rather than its difference matters, as with a rate.
        whole: whether samplers take whole numbers only.
        may_be_never: whether it may be `NEVER`. A space names such a field, whatever its default is.
        of: another field, at whose default this one decides nothing. Where that one may be never, a space names this
            one too, unless it is never throughout.
        default: its value where a space does not name it.
        by_name: whether Python code must give it by name; by default where it has a default.
    """
    if by_name is None:
        by_name = default is not dataclasses.MISSING
    metadata = {"symbol": symbol, "logarithmic": logarithmic, "whole": whole, "may_be_never": may_be_never, "of": of}
    return dataclasses.field(default=default, kw_only=by_name, metadata=metadata)


@dataclass(frozen=True)
class Hyperparameters:
    """Base class: a pipeline's own hyperparameters are a frozen dataclass of numbers, each made by `searched`.

    A space may leave out those with a default (see `searched`). These are every pipeline's:

    Attributes:
        final_epochs: of one retraining after the last step, with a linear schedule and nothing held fixed; a part of
            one will do. The paper has none.
        final_learning_rate: the greatest of that retraining. Above 0 where there is one.

    Raises:
        UserError: a value outside its range, named with the bound it breaks.
    """

    final_epochs: float = searched("final epochs", default=0.0)
    final_learning_rate: float = searched("final LR", logarithmic=True, of="final_epochs", default=0.0)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not (math.isfinite(value) or (value == NEVER and field.metadata.get("may_be_never"))):
                never = ", nor ice_ray.NEVER" if field.metadata.get("may_be_never") else ""
                raise UserError(f"hyperparameter {field.name}={value!r} is not a finite number{never}")
            object.__setattr__(self, field.name, float(value))
        self._check("final_epochs", self.final_epochs >= 0, "at least 0")
        least = "above 0 where there are final_epochs" if self.final_epochs else "at least 0"
        self._check("final_learning_rate", self.final_learning_rate > 0 or not self.final_epochs, least)
        self._check("final_learning_rate", self.final_learning_rate >= 0, least)

    def _check(self, name: str, holds: bool, bound: str) -> None:
        if not holds:
            raise UserError(f"hyperparameter {name}={spelled(getattr(self, name))} must be {bound}")

    @property
    def freezes(self) -> bool:
        """Whether a run with them holds layers fixed, and so needs the freezing probe."""
        return False

    @property
    def idle(self) -> frozenset[str]:
        """Those that decide nothing beside the others: the rate of no retraining, the rates of no fine-tune."""
        defaults = self.defaults()
        return frozenset(
            field.name
            for field in dataclasses.fields(self)
            if (of := field.metadata.get("of")) and getattr(self, of) == defaults[of]
        )

    @property
    def settled(self) -> Self:
        """The one of all that mean the same in which what is idle is at its default."""
        defaults = self.defaults()
        return dataclasses.replace(self, **{name: defaults[name] for name in self.idle})

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """All of them, in order."""
        return tuple(field.name for field in sorted(dataclasses.fields(cls), key=lambda field: bool(field.kw_only)))

    @classmethod
    def required(cls, named: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """Those that must be named.

        Args:
            named: the value, or the values, of each that is named.
        """
        may_be_never, never = cls.may_be_never(), {n for n, values in (named or {}).items() if _is_never(values)}
        return tuple(
            name
            for name, field in ((name, cls.__dataclass_fields__[name]) for name in cls.names())
            if field.default is dataclasses.MISSING
            or name in may_be_never
            or (field.metadata.get("of") in may_be_never - never)
        )

    @classmethod
    def defaults(cls) -> dict[str, float]:
        """Of those that have one."""
        found = {field.name: field.default for field in dataclasses.fields(cls)}
        return {name: float(value) for name, value in found.items() if value is not dataclasses.MISSING}

    @classmethod
    def may_be_never(cls) -> frozenset[str]:
        """Those that may be `NEVER`."""
        return frozenset(field.name for field in dataclasses.fields(cls) if field.metadata.get("may_be_never"))

    @classmethod
    def decided_by(cls, name: str) -> frozenset[str]:
        """Those that decide nothing where the one of that name is at its default."""
        return frozenset(field.name for field in dataclasses.fields(cls) if field.metadata.get("of") == name)

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
        """Built from a mapping of their names, as `plain` and `as_dict` give it.

        Raises:
            UserError: not a mapping, or names missing or unknown.
        """
        check_names(cls, values, "hyperparameters")
        numbers: dict[str, Any] = dict(values)  # type: ignore[call-overload]
        return cls(**numbers | {name: NEVER for name in cls.may_be_never() if numbers.get(name) == "never"})

    def as_dict(self) -> dict[str, float]:
        """The values by name."""
        return {name: getattr(self, name) for name in self.names()}

    def plain(self) -> dict[str, float | str]:
        """The values by name, for files and people: a number, or `never`."""
        return {name: "never" if value == NEVER else value for name, value in self.as_dict().items()}

    @property
    def in_effect(self) -> dict[str, float]:
        """Those that people are shown, by name: not what decides nothing, nor what a space leaves at its default."""
        defaults, own, idle = self.defaults(), self.as_dict(), self.idle
        shown = [name for name in own if name in self.required(own) or own[name] != defaults[name]]
        return {name: own[name] for name in shown if name not in idle}

    def __str__(self) -> str:
        symbols = self.symbols()
        return ", ".join(f"{symbols[name]} {spelled(value)}" for name, value in self.in_effect.items())


def check_names(kind: type[Hyperparameters], values: object, origin: str) -> None:
    """Whether a mapping has all names that must be there, and no other.

    Raises:
        UserError: what is missing or unknown.
    """
    if not isinstance(values, dict):
        raise UserError(f"{origin} must be a mapping of {', '.join(sorted(kind.required()))}")
    required = kind.required(values)
    missing, unknown = set(required) - set(values), {str(key) for key in values} - set(kind.names())
    if missing or unknown:
        said = [f"missing {', '.join(sorted(missing))}"] if missing else []
        said += [f"unknown {', '.join(sorted(unknown))}"] if unknown else []
        finite = [name for name in sorted(kind.may_be_never() & set(values)) if kind.decided_by(name) & missing]
        why = f" ({finite[0]} is not never throughout)" if finite else ""
        raise UserError(f"{origin}: {'; '.join(said)}{why}")


def _is_never(values: object) -> bool:
    """Whether a value is never, or all of several are."""
    own = values if isinstance(values, (list, tuple)) else [values]
    return bool(own) and all(value in ("never", NEVER) for value in own)


_of_theta = partial(searched, of="accuracy_drop_threshold", default=0.0, by_name=False)


@dataclass(frozen=True)
class IceHyperparameters(Hyperparameters):
    """ICE-Pruning's (section III of the paper; the paper's symbols in parentheses).

    Where the first is never, the other five decide nothing and may be 0.

    Attributes:
        accuracy_drop_threshold: (theta) drop against the ORIGINAL accuracy, in percentage points, from which on
            a pruning step is followed by a fine-tune. At least 0; `NEVER` for no fine-tune after any step.
        frozen_fraction: (eta) share of the freezable convolutions held fixed while fine-tuning, in [0, 1].
        base_learning_rate: (LR_base) bound of the learning rate for the unpruned model. Above 0.
        learning_rate_reduction: (Delta) how far the bound sinks while pruning, in (0, base_learning_rate).
        midpoint_pruned_share: (p) pruned share of the parameters at which half of the reduction is reached,
            in (0, 0.5].
        steepness: (beta) how sudden the reduction is. Above 0.
    """

    accuracy_drop_threshold: float = searched("theta", may_be_never=True, default=NEVER, by_name=False)
    frozen_fraction: float = _of_theta("eta")
    base_learning_rate: float = _of_theta("LR", logarithmic=True)
    learning_rate_reduction: float = _of_theta("Delta", logarithmic=True)
    midpoint_pruned_share: float = _of_theta("p")
    steepness: float = _of_theta("beta")

    def __post_init__(self) -> None:
        super().__post_init__()
        rate = self.base_learning_rate
        self._check("accuracy_drop_threshold", self.accuracy_drop_threshold >= 0, "at least 0 (percentage points)")
        self._check("frozen_fraction", 0 <= self.frozen_fraction <= 1, "within [0, 1]")
        self._check_used("base_learning_rate", rate > 0, "above 0")
        within = f"within (0, base_learning_rate={rate:g})"
        self._check_used("learning_rate_reduction", 0 < self.learning_rate_reduction < rate, within)
        self._check_used("midpoint_pruned_share", 0 < self.midpoint_pruned_share <= 0.5, "within (0, 0.5]")
        self._check_used("steepness", self.steepness > 0, "above 0")

    def _check_used(self, name: str, holds: bool, bound: str) -> None:
        if getattr(self, name) or name not in self.idle:
            self._check(name, holds, bound)

    @property
    def freezes(self) -> bool:
        return self.settled.frozen_fraction > 0
