"""How often a trial whose process died is started again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable


class Restarts:
    """Counts deaths by trial. Tune's own count is not used: where a process dies while it is handed to another trial,
    that fails at once.
    """

    def __init__(self, allowed: int) -> None:
        self._allowed, self._deaths = allowed, Counter[Hashable]()

    def again(self, trial: Hashable) -> bool:
        """A trial's process has died: whether it is started again."""
        self._deaths[trial] += 1
        return self._deaths[trial] <= self._allowed
