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


def in_words(seconds: float) -> str:
    """Of a duration, as much as one wants to know.

    >>> [in_words(seconds) for seconds in (0.4, 59, 90, 3700)]
    ['0 s', '59 s', '2 min', '1 h 2 min']
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60 + 1e-9) or 1
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def roughly(seconds: float) -> str:
    """Of a guess, no more than it is worth.

    >>> [roughly(seconds) for seconds in (3, 33, 90)]
    ['less than 10 s', 'about 40 s', 'about 2 min']
    """
    if seconds < 10:
        return "less than 10 s"
    return f"about {in_words(10 * -(-seconds // 10))}"
