"""Eq. 2 and eq. 3 against values worked by hand, and the choice of a winner."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ice_ray.errors import RunError
from ice_ray.objective import Candidate, accuracy_drop, choose, normalized_cost


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


def test_auto_takes_the_least_cost_where_the_paper_assumes_all_trials():
    trials = [Candidate(0, 100.0, 2.0), Candidate(1, 100.0, 1.0), Candidate(2, 10.0, 1.0)]
    assert choose(trials, "auto").index == 1
    assert choose(trials, "eq2").index == 1


def test_auto_takes_the_fastest_near_the_smallest_drop_where_one_trial_is_on_the_other_side():
    trials = [Candidate(0, 30.0, 50.0), Candidate(1, 40.0, 20.0), Candidate(2, 35.0, 20.4), Candidate(3, 20.0, 20.6)]
    choice = choose(trials, "auto")
    assert choice.index == 2
    assert "2 of 4 trials are not where" in choice.reason
    assert choose(trials, "eq2").index == 1  # 1 + 20/40, the least


def test_eq2_never_takes_a_trial_without_a_usable_cost():
    trials = [Candidate(0, 1.0, -3.0), Candidate(1, 0.0, 0.0), Candidate(2, 10.0, 5.0)]
    assert choose(trials, "eq2").index == 2


def test_ties_go_to_the_lower_index():
    assert choose([Candidate(3, 10.0, 1.0), Candidate(1, 10.0, 1.0)], "auto").index == 1


def test_nothing_to_choose_from_is_said():
    with pytest.raises(RunError, match="no trial finished"):
        choose([Candidate(0, 1.0, math.nan)], "auto")
