"""Eq. 2 and eq. 3 against values worked by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ice_ray.objective import accuracy_drop, normalized_cost


def test_equation_3():
    assert accuracy_drop(92.0, 90.5) == 1.5
    assert accuracy_drop(90.0, 91.0) == -1.0


@pytest.mark.parametrize(
    ("seconds", "drop", "cost"),
    [
        (100.0, 2.0, 1.02),  # PT > dA > 0: 1 + dA/PT
        (200.0, 2.0, 1.01),  # ... so the slower of two equal drops scores better
        (36.0, 50.0, 1.72),  # PT < dA: 1 + PT/dA, the order folds over
        (50.0, 50.0, 2.0),  # the maximum
        (100.0, 0.0, 1.0),
        (5.0, 0.0, 1.0),  # dA = 0 gives 1 whatever PT is
        (100.0, -2.0, 0.98),  # a gain: below 1
        (50.0, -2.0, 0.96),  # ... and the faster scores better
        (1.0, -3.0, -2.0),  # PT < |dA|: negative
        (0.0, 4.0, 1.0),
    ],
)
def test_equation_2(seconds, drop, cost):
    assert normalized_cost(seconds, drop) == pytest.approx(cost, abs=1e-12)


def test_equation_2_is_infinite_where_it_has_no_value():
    assert normalized_cost(0.0, 0.0) == math.inf
    assert normalized_cost(0.0, -1.0) == math.inf


@given(st.floats(1e-3, 1e6), st.floats(1e-3, 100))
def test_equation_2_lies_between_1_and_2_for_real_losses(seconds, drop):
    assert 1 <= normalized_cost(seconds, drop) <= 2
    assert normalized_cost(seconds, drop) == pytest.approx(normalized_cost(drop, seconds))
