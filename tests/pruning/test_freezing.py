"""Freezing: the three measures by hand, and how many layers eta takes."""

import pytest
import torch

from ice_ray.pruning.freezing import frozen_layers, rank_by_change, weight_changes

BEFORE = {"a.weight": torch.tensor([3.0, 4.0]), "b.weight": torch.tensor([0.0, 2.0])}
AFTER = {"a.weight": torch.tensor([4.0, 3.0]), "b.weight": torch.tensor([0.0, 5.0])}


@pytest.mark.parametrize(
    ("change", "a", "b"),
    [
        ("l2", 2**0.5 / 5, 3 / 2),
        ("l1", 2 / 5, 3 / 2),
        ("norm-difference", 0.0, 3 / 2),  # 7 - 7: the weights moved, their norm did not
    ],
)
def test_weight_changes_by_hand(change, a, b):
    assert weight_changes(BEFORE, AFTER, ["a", "b"], change) == pytest.approx({"a": a, "b": b})


def test_least_change_first_and_ties_by_depth():
    assert rank_by_change({"a": 2.0, "b": 1.0, "c": 2.0, "d": 1.0}) == ("b", "d", "a", "c")


@pytest.mark.parametrize(("eta", "count"), [(0, 0), (0.3, 6), (0.9, 17), (1, 18), (0.5, 9), (0.05, 1)])
def test_eta_takes_a_ceiling(eta, count):
    assert len(frozen_layers([str(n) for n in range(18)], eta)) == count


def test_eta_is_read_in_exact_decimals():
    assert len(frozen_layers([str(n) for n in range(100)], 0.55)) == 55
