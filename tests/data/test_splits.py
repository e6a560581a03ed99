"""Stratified choices: sizes as asked, every class present, proportions kept, seeds kept."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ice_ray.data.splits import stratified_halves, stratified_sample

LABELS = st.lists(st.integers(0, 6), min_size=2, max_size=300).map(np.array)


@given(LABELS, st.data())
def test_size_is_as_asked_and_indices_are_different_and_sorted(labels, draw):
    count = draw.draw(st.integers(1, len(labels)))
    chosen = stratified_sample(labels, count, 0, "test")
    assert len(chosen) == count
    assert len(set(chosen.tolist())) == count
    assert (np.diff(chosen) > 0).all()
    assert chosen.min() >= 0
    assert chosen.max() < len(labels)


@given(LABELS, st.data())
def test_every_class_is_present_where_there_is_room(labels, draw):
    classes = np.unique(labels)
    assume(len(labels) > len(classes))
    count = draw.draw(st.integers(len(classes), len(labels)))
    assert set(labels[stratified_sample(labels, count, 1, "test")]) == set(classes)


def test_proportions_are_kept():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    chosen = stratified_sample(labels, 20, 0, "test")
    assert np.bincount(labels[chosen]).tolist() == [12, 6, 2]


def test_a_rare_class_is_present_at_the_cost_of_the_largest():
    labels = np.repeat([0, 1], [999, 1])
    assert np.bincount(labels[stratified_sample(labels, 10, 0, "test")]).tolist() == [9, 1]


def test_seed_and_purpose_name_the_draw():
    labels = np.repeat(np.arange(10), 100)
    same = [stratified_sample(labels, 50, 3, "a") for _ in range(2)]
    assert np.array_equal(*same)
    assert not np.array_equal(same[0], stratified_sample(labels, 50, 4, "a"))
    assert not np.array_equal(same[0], stratified_sample(labels, 50, 3, "b"))


@given(LABELS)
def test_halves_are_all_there_is_and_disjoint(labels):
    first, second = stratified_halves(labels, 0, "halves")
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(len(labels)))
    assert len(first) - len(second) in (0, 1)


@pytest.mark.parametrize("count", [0, -1, 11])
def test_what_cannot_be_taken_is_refused(count):
    with pytest.raises(ValueError, match="cannot take"):
        stratified_sample(np.zeros(10, dtype=np.int64), count, 0, "test")
