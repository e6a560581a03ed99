"""How long something still takes, by how long it has taken so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Pace:
    """Of work in equal parts, which begins later than the job does.

    While a part takes its time the guess does not grow: it counts down, to what the parts after it are worth.
    """

    _began: float | None = None
    _at: float = 0.0
    _done: int = 0

    def begin(self, now: float) -> None:
        """The first part begins; nothing where it has begun."""
        if self._began is None:
            self._began = now

    def reach(self, done: int, now: float) -> None:
        """So many parts are done."""
        self.begin(now)
        if done > self._done:
            self._at, self._done = now, done

    def left(self, remaining: float, now: float, at_hand: float = 1.0) -> float | None:
        """Seconds that so many parts still take, of which so many are at hand; None before one has been done."""
        if not self._done or self._began is None:
            return None
        each = (self._at - self._began) / self._done
        return max(0.0, each * at_hand - (now - self._at)) + each * (remaining - at_hand) if remaining else 0.0
