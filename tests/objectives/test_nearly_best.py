"""The fastest of the nearly best, against choices worked by hand."""

from ice_ray.objectives import Candidate, objective_named

NEARLY_BEST = objective_named("nearly-best")


def test_nearly_best_takes_the_fastest_near_the_smallest_drop_though_eq2_would_have_the_slowest():
    trials = [Candidate(0, 100.0, 2.4), Candidate(1, 200.0, 2.0), Candidate(2, 400.0, 2.1), Candidate(3, 50.0, 2.6)]
    choice = NEARLY_BEST.choose(trials)
    assert choice.index == 0
    assert choice.reason == "the fastest (100.00 s) of the 3 whose drop is within 0.5 points of the smallest (2.00)"
    assert objective_named("eq2").choose(trials).index == objective_named("auto").choose(trials).index == 2


def test_nearly_best_takes_a_slower_trial_that_has_gained_by_it():
    trials = [Candidate(0, 100.0, 2.6), Candidate(1, 200.0, 2.0), Candidate(2, 300.0, -1.0)]
    assert NEARLY_BEST.choose(trials[:2]).index == 1
    assert NEARLY_BEST.choose(trials).index == 2
    assert NEARLY_BEST.values(trials) == [(2.6,), (2.0,), (-1.0,)]
