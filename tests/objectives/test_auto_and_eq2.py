"""The paper's choice, and where `auto` departs from it, against choices worked by hand."""

import math

from ice_ray.objectives import Candidate, objective_named

AUTO, EQ2 = objective_named("auto"), objective_named("eq2")


def test_auto_takes_the_least_cost_where_the_paper_assumes_all_trials():
    trials = [Candidate(0, 100.0, 2.0), Candidate(1, 100.0, 1.0), Candidate(2, 10.0, 1.0)]
    assert AUTO.choose(trials).index == 1
    assert EQ2.choose(trials).index == 1


def test_auto_takes_the_fastest_near_the_smallest_drop_where_one_trial_is_on_the_other_side():
    trials = [Candidate(0, 30.0, 50.0), Candidate(1, 40.0, 20.0), Candidate(2, 35.0, 20.4), Candidate(3, 20.0, 20.6)]
    choice = AUTO.choose(trials)
    assert choice.index == 2
    assert "2 of 4 trials are not where" in choice.reason
    assert EQ2.choose(trials).index == 1  # 1 + 20/40, the least


def test_eq2_never_takes_a_trial_without_a_usable_cost():
    trials = [Candidate(0, 1.0, -3.0), Candidate(1, 0.0, 0.0), Candidate(2, 10.0, 5.0)]
    assert EQ2.choose(trials).index == 2
    assert [EQ2.accepts(trial) for trial in trials] == [False, False, True]


def test_samplers_minimise_the_cost_for_eq2_and_the_drop_for_auto():
    trials = [Candidate(0, 100.0, 2.0), Candidate(1, 36.0, 50.0)]
    assert EQ2.values(trials) == [(1.02,), (1.72,)]
    assert AUTO.values(trials) == [(2.0,), (50.0,)]


def test_a_trial_whose_figures_are_no_numbers_is_not_chosen():
    trials = [Candidate(0, 1.0, math.nan), Candidate(1, math.inf, 1.0), Candidate(2, 10.0, 5.0)]
    assert AUTO.choose(trials).index == 2
