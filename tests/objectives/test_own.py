"""The user's own objective: the example, and what is made of answers that are none."""

from pathlib import Path

import pytest

from ice_ray.errors import UserError
from ice_ray.objectives import Candidate, Choice, objective_named

ROOT = Path(__file__).parent.parent.parent
TRIALS = [Candidate(4, 10.0, 3.0), Candidate(1, 60.0, 2.0), Candidate(2, 200.0, 0.5)]


def test_the_example_takes_the_least_price(monkeypatch):
    """10 + 60 * 3 = 190 s, 60 + 60 * 2 = 180 s, 200 + 60 * 0.5 = 230 s."""
    monkeypatch.chdir(ROOT)
    objective = objective_named("examples.objective:choose")
    assert objective.choose(TRIALS) == Choice(1, "least price (180.0 s) at 60 s a point of accuracy")
    assert objective.values(TRIALS) == [(3.0,), (2.0,), (0.5,)]


ANSWERS = """
import numpy as np

from ice_ray.objectives import Choice

def index(trials): return max(trials, key=lambda trial: trial.drop).index
def numpy_index(trials): return np.argmin([trial.drop for trial in trials]) * 2
def first(trials): return trials[0].index
def position(trials): return 0
def nothing(trials): return None
def number(trials): return 2.0
def truth(trials): return True
def silent(trials): return Choice(2, None)
def broken(trials): return trials[7]
nothing_to_call = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Objectives of a module in the working directory."""
    (tmp_path / "own_objectives.py").write_text(ANSWERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.chdir(tmp_path)
    return lambda function: objective_named(f"own_objectives:{function}")


def test_an_index_alone_will_do(own):
    assert own("index").choose(TRIALS) == Choice(4, "chosen by own_objectives:index")
    assert own("numpy_index").choose(TRIALS).index == 2
    assert own("first").choose(TRIALS).index == 1  # they come sorted


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("position", "returned 0, not a Choice .or index. of one of the finished trials 1, 2, 4; mend it and go on"),
        ("nothing", "returned None"),
        ("number", "returned 2.0"),
        ("truth", "returned True"),
        ("silent", "returned Choice"),
        ("broken", "raised IndexError: list index out of range"),
    ],
)
def test_other_answers_are_refused(own, function, said):
    with pytest.raises(UserError, match=said):
        own(function).choose(TRIALS)


def test_what_is_not_there_is_refused_at_once(own):
    with pytest.raises(UserError, match="AttributeError"):
        own("no_such_function")
    with pytest.raises(UserError, match="is not a function"):
        own("nothing_to_call")
