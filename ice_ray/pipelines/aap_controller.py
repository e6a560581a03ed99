"""The adaptive controller of Automatic Attention Pruning (Zhao et al. 2023): how far the threshold goes, and back."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

_MOST_FAILURES = 3


@dataclass(frozen=True)
class RoundResult:
    """A network that a round may start from: its snapshot, its accuracy in percent."""

    snapshot: str
    accuracy: float


@dataclass(frozen=True)
class AcceptedRound:
    """A round that met every target.

    Attributes:
        threshold: T that it pruned with.
        step: lambda then.
        result: what it led to.
    """

    threshold: float
    step: float
    result: RoundResult


@dataclass(frozen=True)
class Controller:
    """What the next round does.

    Attributes:
        threshold: (T) of the next round.
        step: (lambda) by which T rises after an accepted round.
        failures: (k) rounds in a row that have been rolled back to the same one.
        start: what it starts from.
        stack: accepted rounds to roll back to, the last one on top.
        stopped: whether there is nothing left to try.
    """

    threshold: float
    step: float
    start: RoundResult
    failures: int = 0
    stack: tuple[AcceptedRound, ...] = ()
    stopped: bool = False

    def accept(self, result: RoundResult) -> Controller:
        """The round has met every target: go further by lambda."""
        done = AcceptedRound(self.threshold, self.step, result)
        return Controller(self.threshold + self.step, self.step, result, 0, (*self.stack, done))

    def reject(self) -> Controller:
        """The round has missed one: back to the last accepted round i, with a smaller lambda.

        lambda_i / 2^k from T_i on the first and second failure; on the third, half of the last lambda, from T_i itself,
        and the round is taken off the stack. Nothing on the stack: stop.
        """
        if not self.stack:
            return dataclasses.replace(self, stopped=True)
        top, failures = self.stack[-1], self.failures + 1
        if failures < _MOST_FAILURES:
            step = top.step / 2**failures
            return Controller(top.threshold + step, step, top.result, failures, self.stack)
        return Controller(top.threshold, self.step / 2, top.result, 0, self.stack[:-1])

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Controller:
        """What `as_json` gave."""
        stack = tuple(AcceptedRound(**{**entry, "result": RoundResult(**entry["result"])}) for entry in values["stack"])
        return cls(**{**values, "start": RoundResult(**values["start"]), "stack": stack})
