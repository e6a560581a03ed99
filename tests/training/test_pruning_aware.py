"""Eq. 1 against values worked by hand, its limits, and the logarithmic grid."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.training.schedules.pruning_aware import maximum_learning_rate, on_logarithmic_grid


def point(base=1e-3, reduction=7e-4, midpoint=0.1, steepness=50.0):
    return IceHyperparameters(1.0, 0.5, base, reduction, midpoint, steepness)


@pytest.mark.parametrize(
    ("share", "rate"),
    # base 1e-3, Delta 7e-4, p .1, beta 50, from the power as the paper writes it
    [(0.95, 9.97e-4), (0.90, 6.5e-4), (0.85, 3.0e-4)],
)
def test_values_of_the_paper_s_form(share, rate):
    assert maximum_learning_rate(point(), share) == pytest.approx(rate, abs=4e-6)


@pytest.mark.parametrize("share", [0.86, 0.88, 0.9, 0.92, 0.95, 0.99])
def test_equals_the_equation_as_printed(share):
    printed = 1e-3 - 7e-4 / (1 + (share / (2 * (1 - 0.1) - share)) ** 50)
    assert maximum_learning_rate(point(), share) == pytest.approx(printed, rel=1e-12)


def test_the_midpoint_is_half_of_the_reduction_whatever_the_steepness():
    for steepness in (0.5, 40, 5000):
        rate = maximum_learning_rate(point(steepness=steepness), 0.9)
        assert rate == pytest.approx(6.5e-4, rel=1e-9)


def test_limits_where_the_power_overflows_or_vanishes():
    assert maximum_learning_rate(point(steepness=1e6), 0.95) == pytest.approx(1e-3)
    assert maximum_learning_rate(point(steepness=1e6), 0.5) == pytest.approx(3e-4)
    assert maximum_learning_rate(point(steepness=1e6), 1e-9) == pytest.approx(3e-4)


def test_p_one_half_with_nothing_pruned_is_the_limit_not_a_division_by_zero():
    assert maximum_learning_rate(point(midpoint=0.5), 1.0) == 1e-3


def test_a_flat_curve_is_a_little_below_the_base_with_nothing_pruned():
    rate = maximum_learning_rate(point(steepness=1.0), 1.0)
    assert rate == pytest.approx(1e-3 - 7e-4 / (1 + 1 / 0.8), rel=1e-12)


@given(st.floats(1e-6, 1), st.floats(1e-6, 1), st.floats(0.01, 0.5), st.floats(0.1, 1e4))
def test_it_sinks_with_pruning_and_stays_within_its_bounds(first, second, midpoint, steepness):
    more, less = sorted((first, second), reverse=True)
    curve = point(midpoint=midpoint, steepness=steepness)
    high, low = maximum_learning_rate(curve, more), maximum_learning_rate(curve, less)
    assert 3e-4 - 1e-15 <= low <= high + 1e-15 <= 1e-3 + 1e-14


@given(st.floats(1e-6, 1), st.floats(1e-4, 0.1))
def test_the_grid_rounds_by_at_most_half_a_step_and_only_once(rate, tolerance):
    rounded = on_logarithmic_grid(rate, tolerance)
    assert abs(math.log(rounded / rate)) <= math.log1p(tolerance) / 2 + 1e-9
    assert on_logarithmic_grid(rounded, tolerance) == pytest.approx(rounded, rel=1e-12)


def test_nearly_equal_rates_become_equal_and_tolerance_0_rounds_nothing():
    assert on_logarithmic_grid(1e-3, 1e-2) == on_logarithmic_grid(1.0001e-3, 1e-2)
    assert on_logarithmic_grid(1.0001e-3, 0) == 1.0001e-3


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="outside"):
        maximum_learning_rate(point(), share)
