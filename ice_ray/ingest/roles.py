"""Which images train, which validate, and which are read once at the end to test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ice_ray.data.splits import Indices, stratified_halves, stratified_sample
from ice_ray.errors import UserError
from ice_ray.ingest.config import DecideOn
from ice_ray.ingest.datasets.base import Dataset

_TRAIN_HOLDOUT = 0.1


@dataclass(frozen=True)
class Rows:
    """Some rows of a split."""

    split: str
    indices: Indices

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Roles:
    """The three roles. `test` shares no image with the others, except where all held-out images play both roles."""

    train: Rows
    validation: Rows
    test: Rows


def assign_roles(dataset: Dataset, decide_on: DecideOn, seed: int) -> Roles:
    """Give every image its role.

    `holdout`: a validation split decides and a test split reports where both exist; a single held-out split is
    divided in stratified halves. `test`: the whole held-out split (test before val) decides and reports, as in
    the paper. `train`: a tenth of the training images is taken out, half of it decides and half reports; right
    only where the dense model was not trained on them.

    Raises:
        UserError: no held-out split for the first two.
    """
    everything = {split: Rows(split, np.arange(len(labels))) for split, labels in dataset.labels.items()}
    train = everything["train"]
    held_out = [split for split in ("val", "test") if split in everything]
    if decide_on == "train":
        labels = dataset.labels["train"]
        out = stratified_sample(labels, max(2, round(len(labels) * _TRAIN_HOLDOUT)), seed, "held out of training")
        first, second = stratified_halves(labels[out], seed, "decision and report halves")
        rest = np.setdiff1d(train.indices, out)
        return Roles(Rows("train", rest), Rows("train", out[first]), Rows("train", out[second]))
    if not held_out:
        why = "".join(f" ({note})" for note in dataset.notes)
        raise UserError(
            f"the data has no val or test split to decide on{why}; if the dense model was not trained on all of the "
            "training images, take some of those (decide-on train)"
        )
    if decide_on == "test":
        whole = everything[held_out[-1]]
        return Roles(train, whole, whole)
    if len(held_out) == 2:
        return Roles(train, everything["val"], everything["test"])
    split = held_out[0]
    first, second = stratified_halves(dataset.labels[split], seed, "decision and report halves")
    return Roles(train, Rows(split, first), Rows(split, second))


def subsample(dataset: Dataset, rows: Rows, count: int, seed: int, purpose: str) -> Rows:
    """A stratified part of some rows; all of them where `count` is no smaller."""
    if count >= len(rows):
        return rows
    chosen = stratified_sample(dataset.labels[rows.split][rows.indices], count, seed, purpose)
    return Rows(rows.split, rows.indices[chosen])
