"""Whether a dense model knows anything: most that do not were given no weights, or images in another dress."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ice_ray.wording import counted

_STANDARD_ERRORS = 3


def no_better_than_chance(accuracy: float, labels: NDArray[np.int64]) -> str | None:
    """In words, where a model may as well be guessing; None where it is not.

    Chance is the share of the most frequent class: who names it throughout has that accuracy. A model is no better
    where it is not above that by three standard errors of a guesser's accuracy. Of a few images that is asked of
    everyone; so whoever is right on more than half of what a guesser misses is not doubted, however few they are.

    Args:
        accuracy: percent.
        labels: (N,) of the images that it is over.

    >>> no_better_than_chance(10.4, np.arange(1000) % 10)
    'dense: 10.40% on 1000 images, no better than chance (10 classes, 10.00% of them the most frequent)'
    >>> no_better_than_chance(15.0, np.arange(1000) % 10)
    """
    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) < 2:
        return None
    chance = float(counts.max() / counts.sum())
    error = (chance * (1 - chance) / len(labels)) ** 0.5
    if accuracy / 100 > min(chance + _STANDARD_ERRORS * error, (1 + chance) / 2):
        return None
    guessing = f"{len(counts)} classes, {100 * chance:.2f}% of them the most frequent"
    return f"dense: {accuracy:.2f}% on {counted(len(labels), 'image')}, no better than chance ({guessing})"
