"""The threshold test, decided from part of the images as soon as the rest cannot change it."""

from __future__ import annotations

from dataclasses import dataclass

from ice_ray.objective import accuracy_drop


@dataclass(frozen=True)
class Threshold:
    """Whether a network has lost too much: original minus present accuracy has reached a drop (Algorithm 2, eq. 3).

    Attributes:
        original: accuracy of the dense network, percent.
        drop: theta, percentage points.
        error: how probable a wrong verdict may be; 0 waits until the images that remain cannot change it.
    """

    original: float
    drop: float
    error: float = 0.0

    @property
    def is_reachable(self) -> bool:
        """Whether any network can lose so much."""
        return self.reached(0.0)

    def reached(self, accuracy: float) -> bool:
        """Whether a network of that accuracy (percent) has lost too much."""
        return accuracy_drop(self.original, accuracy) >= self.drop

    def verdict(self, correct: int, seen: int, total: int, looks: int) -> bool | None:
        """Whether the drop over all images will have reached the threshold; None while that is open.

        Without `error` only the answer True comes early: a network that is spared keeps its accuracy, so that is
        measured to the end. The images seen must then be a uniform sample of all; the bound is that of a sequential
        test which spends error / looks at every look (hypergeometric tails, a union bound over the looks).

        Args:
            correct, seen: of the images looked at so far.
            total: of all images.
            looks: how often this is asked in a measurement at most.
        """
        at_best = _percent(correct + total - seen, total)
        if seen == total or self.reached(at_best):
            return self.reached(at_best)
        if not self.error:
            return None
        if not self.is_reachable:  # no network can lose so much: there is nothing to find out
            return False
        enough = self._least_that_spares(total)
        from scipy.stats import hypergeom  # here: it takes a second to load, in every process

        share = self.error / looks
        below = self.reached(_percent(correct, seen))  # the verdict must be what the images seen say, too
        if below and enough <= total and hypergeom.cdf(correct, total, enough, seen) <= share:
            return True
        if not below and hypergeom.sf(correct - 1, total, enough - 1, seen) <= share:
            return False
        return None

    def _least_that_spares(self, total: int) -> int:
        """The fewest right answers with which the threshold is not reached; total + 1 where there are none."""
        low, high = 0, total + 1
        while low < high:
            middle = (low + high) // 2
            if self.reached(_percent(middle, total)):
                low = middle + 1
            else:
                high = middle
        return low


def _percent(correct: int, total: int) -> float:
    return 100.0 * correct / total
