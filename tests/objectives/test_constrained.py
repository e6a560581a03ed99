"""The fastest within the limit, against choices worked by hand; what samplers minimise keeps the same order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ice_ray.errors import UserError
from ice_ray.objectives import Candidate, objective_named

FIGURES = st.lists(st.tuples(st.floats(0, 1e4), st.floats(-20, 100)), min_size=1, max_size=12)


def choose(limit: float, *figures: tuple[float, float]):
    trials = [Candidate(index, *pair) for index, pair in enumerate(figures)]
    return objective_named("constrained", limit).choose(trials)


@pytest.mark.parametrize(
    ("limit", "figures", "index"),
    [
        (2.0, [(10, 3), (30, 1), (20, 2)], 2),  # a drop of the limit itself is within it
        (0.5, [(10, 3), (30, 1), (20, 2)], 1),  # none is within: the smallest drop
        (5.0, [(20, 1), (10, 3), (10, 2)], 2),  # as fast: the smaller drop
        (5.0, [(20, 1), (10, 3), (10, 3)], 1),  # equal: the lower index
        (0.0, [(20, 1), (30, -1), (40, -2)], 1),  # gains are within, and only time counts then
        (-1.5, [(20, 1), (30, -1), (40, -2)], 2),
        (0.5, [(20, 1), (10, 1)], 1),  # as near to the limit: the faster
        (0.5, [(10, 80)], 0),
    ],
)
def test_choices_worked_by_hand(limit, figures, index):
    assert choose(limit, *figures).index == index


def test_the_reason_says_when_no_trial_keeps_to_the_limit():
    assert choose(0.5, (10, 3), (30, 1)).reason == (
        "none of 2 finished trials keeps within search.max_drop 0.5 points; so the smallest drop (1.00) wins"
    )
    assert "the fastest (30.00 s) of the 1 of 2" in choose(2, (10, 3), (30, 1)).reason


def test_what_samplers_minimise_worked_by_hand():
    """Slowest 40 s; excesses 1 and 4 points: 40 * (1 + 1/4) and 40 * (1 + 4/4)."""
    trials = [Candidate(0, 40, 1), Candidate(1, 5, 3), Candidate(2, 1, 6), Candidate(3, 20, 2)]
    assert objective_named("constrained", 2.0).values(trials) == [(40,), (50,), (80,), (20,)]


@given(FIGURES, st.floats(-5, 50))
def test_a_violator_never_wins_where_a_trial_qualifies_and_never_looks_better_to_a_sampler(figures, limit):
    trials = [Candidate(index, *pair) for index, pair in enumerate(figures)]
    objective = objective_named("constrained", limit)
    winner = trials[objective.choose(trials).index]
    within = [trial for trial in trials if trial.drop <= limit]
    if within:
        assert winner.drop <= limit
        assert winner.pruning_seconds == min(trial.pruning_seconds for trial in within)
    else:
        assert winner.drop == min(trial.drop for trial in trials)
    values = [value for (value,) in objective.values(trials)]
    good = [value for value, trial in zip(values, trials, strict=True) if trial.drop <= limit]
    bad = [value for value, trial in zip(values, trials, strict=True) if trial.drop > limit]
    assert not good or not bad or max(good) <= min(bad)


@pytest.mark.parametrize(
    ("name", "limit", "said"),
    [
        ("constrained", None, "needs search.max_drop"),
        ("constrained", float("nan"), "must be a number"),
        ("auto", 1.0, "is for search.objective constrained, not for 'auto'"),
        ("examples.objective:choose", 1.0, "is for search.objective constrained"),
        ("constraint", 1.0, "nearest: constrained"),
        ("no_such_module:choose", None, "ModuleNotFoundError"),
    ],
)
def test_what_is_refused(name, limit, said):
    with pytest.raises(UserError, match=said):
        objective_named(name, limit)
