"""What holds for each objective: the order of trials does not matter, and one trial, or none, is no special case."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ice_ray.errors import RunError
from ice_ray.objectives import Candidate, Objective, objective_named

ROOT = Path(__file__).parent.parent.parent
NAMES = ["auto", "eq2", "nearly-best", "constrained", "pareto", "examples.objective:choose"]
FIGURES = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 8)), min_size=1, max_size=10)


@pytest.fixture(scope="module", params=NAMES)
def objective(request) -> Objective:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return objective_named(request.param, 3.0 if request.param == "constrained" else None)


@given(FIGURES, st.randoms(use_true_random=False))
def test_the_order_of_the_trials_does_not_change_the_choice(objective, figures, random):
    trials = [Candidate(index, float(seconds), float(drop)) for index, (seconds, drop) in enumerate(figures)]
    shuffled = random.sample(trials, len(trials))
    assert objective.choose(shuffled) == objective.choose(trials)


def test_ties_go_to_the_lower_index(objective):
    assert objective.choose([Candidate(3, 10.0, 1.0), Candidate(1, 10.0, 1.0)]).index == 1


def test_a_single_trial_wins(objective):
    assert objective.choose([Candidate(5, 10.0, 60.0)]).index == 5


def test_nothing_to_choose_from_is_said(objective):
    for none in ([], [Candidate(0, 1.0, math.nan)]):
        with pytest.raises(RunError, match="no trial finished"):
            objective.choose(none)


def test_a_value_for_every_trial_and_dimension(objective):
    trials = [Candidate(0, 10.0, 1.0), Candidate(1, 5.0, 9.0), Candidate(2, 50.0, 2.0)]
    values = objective.values(trials)
    assert [len(value) for value in values] == [objective.dimensions] * 3
    assert all(math.isfinite(number) for value in values for number in value)
    assert objective.values([]) == []


def test_a_trial_that_took_less_wins_nothing(objective):
    """Where a pipeline decides by itself how much goes, doing nothing is fast and loses nothing."""
    idle = Candidate(0, 1.0, 0.0, unpruned_share=1.0)
    others = [Candidate(1, 30.0, 2.0, unpruned_share=0.5), Candidate(2, 60.0, 2.5, unpruned_share=0.53)]
    choice = objective.choose([idle, *others])
    assert choice.index == objective.choose(others).index
    assert "of the 2 that took most of 3 trials" in choice.reason
