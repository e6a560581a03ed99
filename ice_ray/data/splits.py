"""Choosing images by index: stratified subsamples and halves, seeded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ice_ray.randomness import seed_of

Indices = NDArray[np.int64]


def stratified_sample(labels: NDArray[np.int64], count: int, seed: int, purpose: str) -> Indices:
    """`count` indices (sorted) with every class in proportion, each present class at least once where count allows.

    Shares are largest remainders: exact in sum, each within one image of proportion (but for classes that
    would have none).

    Args:
        labels: (N,) class of each image.
        count: how many to take, 0 < count <= N.
        seed, purpose: name the draw; the same two give the same indices.
    """
    if not 0 < count <= len(labels):
        raise ValueError(f"cannot take {count} of {len(labels)} images")
    classes, sizes = np.unique(labels, return_counts=True)
    taken = _shares(sizes, count)
    random = np.random.default_rng(seed_of(seed, purpose))
    chosen = [
        random.permutation(np.flatnonzero(labels == label))[:take] for label, take in zip(classes, taken, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def stratified_halves(labels: NDArray[np.int64], seed: int, purpose: str) -> tuple[Indices, Indices]:
    """All indices in two stratified parts, the first the larger by one where the number is odd."""
    first = stratified_sample(labels, (len(labels) + 1) // 2, seed, purpose)
    return first, np.setdiff1d(np.arange(len(labels)), first)


def _shares(sizes: Indices, count: int) -> Indices:
    """How many of each class: largest remainders of count x size / total, then one each where count allows."""
    exact = sizes * (count / sizes.sum())
    taken: Indices = np.floor(exact).astype(np.int64)
    remainders = np.argsort(-(exact - taken), kind="stable")
    taken[remainders[: count - taken.sum()]] += 1
    while count >= len(sizes) and (taken == 0).any():
        taken[np.argmax(taken)] -= 1
        taken[np.argmin(taken)] += 1
    return taken
