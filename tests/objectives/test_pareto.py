"""The front against its definition, and knees worked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ice_ray.objectives import Candidate, objective_named, pareto_front

PARETO = objective_named("pareto")
# Few different values, so that equal ones are common.
FIGURES = st.lists(st.tuples(st.integers(0, 6), st.integers(-3, 3)), min_size=1, max_size=15)


def candidates(figures) -> list[Candidate]:
    return [Candidate(index, *map(float, pair)) for index, pair in enumerate(figures)]


def dominates(one: Candidate, other: Candidate) -> bool:
    as_good = one.pruning_seconds <= other.pruning_seconds and one.drop <= other.drop
    return as_good and (one.pruning_seconds < other.pruning_seconds or one.drop < other.drop)


@given(FIGURES)
def test_the_front_is_what_nothing_dominates(figures):
    trials = candidates(figures)
    expected = {trial.index for trial in trials if not any(dominates(other, trial) for other in trials)}
    front = pareto_front(trials)
    assert {trial.index for trial in front} == expected
    assert [trial.pruning_seconds for trial in front] == sorted(trial.pruning_seconds for trial in front)


@given(FIGURES)
def test_the_choice_is_on_the_front(figures):
    trials = candidates(figures)
    assert PARETO.choose(trials).index in {trial.index for trial in pareto_front(trials)}


@pytest.mark.parametrize(
    ("figures", "index"),
    [
        ([(10, 5)], 0),
        ([(10, 5), (20, 1)], 1),  # two ends and nothing between: the more accurate
        ([(0, 10), (2, 2), (5, 1), (10, 0)], 1),  # scaled 0.2 + 0.2 against 0.5 + 0.1 below x + y = 1
        ([(0, 100), (200, 20), (500, 10), (1000, 0)], 1),  # the same in other units
        ([(0, 10), (2, 2), (3, 4), (10, 0)], 1),  # a dominated trial is none of the front
        ([(0, 8), (1, 4), (2, 2), (4, 1), (8, 0)], 2),  # scaled (1/4, 1/4) lies deepest
        ([(0, 4), (1, 2), (2, 1), (4, 0)], 2),  # equally deep: the smaller drop
        ([(0, 10), (5, 9), (10, 0)], 2),  # above the line: no knee, the most accurate end
        ([(0, 10), (5, 5), (10, 0)], 2),  # on the line: none either
        ([(0, 10), (1, 9.5), (8, 1), (10, 0)], 2),  # one above the line, one below
        ([(3, -1), (3, -1), (5, 2)], 0),  # equal ones: the lower index
        ([(0, 1), (1, -5), (9, -6)], 1),  # gains
    ],
)
def test_knees_worked_by_hand(figures, index):
    assert PARETO.choose(candidates(figures)).index == index


def test_the_reason_says_what_won():
    assert "the knee of the front of 3 of 4" in PARETO.choose(candidates([(0, 9), (1, 1), (9, 0), (9, 9)])).reason
    assert "of 2 of 2 finished trials has no knee" in PARETO.choose(candidates([(0, 9), (9, 0)])).reason


def test_samplers_minimise_both():
    assert PARETO.values(candidates([(3, 1)])) == [(3.0, 1.0)]
    assert PARETO.dimensions == 2
