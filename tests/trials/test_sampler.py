"""Optuna's samplers with few trials, failed and running ones among them."""

import math

import pytest

from ice_ray.hyperparameters import NEVER
from ice_ray.pipelines.imp import ImpHyperparameters
from ice_ray.trials.sampler import Outcome, Sampling
from ice_ray.trials.space import SearchBounds, Space, load_space

BOUNDS = load_space("paper-cifar10").bounds
ALGORITHMS = ["tpe", "gp"]


def bowl(point) -> float:
    """Least, 0, in the middle of three of the six ranges."""
    return (
        (point.accuracy_drop_threshold - 1) ** 2
        + (point.frozen_fraction - 0.6) ** 2
        + math.log(point.base_learning_rate / 0.00224) ** 2
    )


def search(sampling: Sampling, fails=(), history=(), dimensions: int = 1):
    """Ask and tell until there are as many as wanted, going on from `history`."""
    history = list(history)
    while len(history) < sampling.total:
        point = sampling.suggest(history, dimensions)
        outcome: Outcome = (bowl(point), point.frozen_fraction)[:dimensions]
        history.append((point, None if len(history) in fails else outcome))
    return history


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dimensions", [1, 2])
def test_points_are_inside_seeded_and_different(algorithm, dimensions):
    sampling = Sampling(algorithm, BOUNDS, 5, seed=0)
    found = search(sampling, fails={1}, dimensions=dimensions)
    for point, _ in found:
        BOUNDS.check(point, "a suggestion")
    assert len({point for point, _ in found}) == 5
    assert found == search(sampling, fails={1}, dimensions=dimensions)
    assert found != search(Sampling(algorithm, BOUNDS, 5, seed=1), fails={1}, dimensions=dimensions)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_resumed_study_asks_as_the_unbroken_one(algorithm):
    """A new study is told what the first part found: it must not matter that another one asked for it."""
    sampling = Sampling(algorithm, BOUNDS, 6, seed=0)
    whole = search(sampling, fails={3})
    assert search(sampling, fails={3}, history=whole[:4]) == whole


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_search_of_failures_goes_on(algorithm):
    found = search(Sampling(algorithm, BOUNDS, 5, seed=0), fails=range(5))
    assert len({point for point, _ in found}) == 5


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_equal_outcomes_are_no_trouble(algorithm):
    history = [(point, (1.0,)) for point in BOUNDS.draw(6, 0)]
    BOUNDS.check(Sampling(algorithm, BOUNDS, 7, seed=0).suggest(history, 1), "a suggestion")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_trials_without_an_outcome_keep_others_away(algorithm):
    """Where the upper half of the rates fails, of 12 trials no more do than of as many random ones: 6 in the mean."""
    wide = SearchBounds("wide", {**BOUNDS.ranges, "base_learning_rate": (1e-3, 1e3)})
    sampling, history = Sampling(algorithm, wide, 12, seed=0), []
    while len(history) < 12:
        point = sampling.suggest(history, 1)
        history.append((point, None if point.base_learning_rate > 1 else (bowl(point),)))
    assert sum(outcome is None for _, outcome in history) <= 6
    assert len({point for point, _ in history}) == 12


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_learning_beats_chance(algorithm):
    """The last five of 15 trials, two seeds: 0.12 (tpe) and 0.15 (gp) in the mean, random draws 0.33."""
    learned = [bowl(point) for seed in range(2) for point, _ in search(Sampling(algorithm, BOUNDS, 15, seed))[-5:]]
    chance = [bowl(point) for point in BOUNDS.draw(1000, 0)]
    assert sum(learned) / len(learned) < 0.6 * sum(chance) / len(chance)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("at_once", [1, 3])
def test_nothing_is_proposed_twice_though_every_proposal_asks_a_study_that_was_loaded_again(algorithm, at_once):
    """With a fixed seed, as a resumed search and one of several trials at once does."""
    history: list = []
    while len(history) < 9:
        point = Sampling(algorithm, BOUNDS, 9, seed=0).suggest(history, 1)
        history.append((point, None))
        if (ended := len(history) - at_once) >= 0:
            history[ended] = (history[ended][0], (bowl(history[ended][0]),))
    assert len({point for point, _ in history}) == 9


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_where_trials_run_decides_what_comes_next(algorithm):
    """The samplers know of them (Optuna's constant liar), or what is proposed would be the same wherever they are."""
    history = [(point, (bowl(point),)) for point in BOUNDS.draw(6, 0)]
    for seed in range(3):
        sampling = Sampling(algorithm, BOUNDS, 12, seed)
        alone = sampling.suggest([*history, (BOUNDS.draw(9, 1)[7], None)], 1)
        beside = [sampling.suggest([*history, (point, None)], 1) for point in (alone, *BOUNDS.draw(9, 1)[:3])]
        assert {alone} < {alone, *beside}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_small_space_is_tried_to_its_end_before_anything_is_tried_again(algorithm):
    """Five numbers of phases, of which models ask for the best again and again."""
    small = SearchBounds(
        "small", {"phases": (1.0, 5.0), "epochs": (1.0, 1.0), "learning_rate": (0.1, 0.1)}, ImpHyperparameters
    )
    history: list = []
    for _ in range(7):
        point = Sampling(algorithm, small, 7, seed=0).suggest(history, 1)
        small.check(point, "a suggestion")
        history.append((point, ((point.phases - 2) ** 2,)))
    assert {point.phases for point, _ in history[:5]} == {1, 2, 3, 4, 5}


def test_the_model_is_asked_after_a_third_of_the_trials():
    counts = {total: Sampling("tpe", BOUNDS, total, 0).random_trials for total in (1, 4, 6, 9, 30, 200)}
    assert counts == {1: 2, 4: 2, 6: 2, 9: 3, 30: 10, 200: 10}


MIXED = Space("mixed", {**load_space("paper-cifar10").values, "accuracy_drop_threshold": (NEVER, 0.5, 1.5)}).bounds


def bowl_or_never(point) -> float:
    return 0.2 if point.accuracy_drop_threshold == NEVER else bowl(point)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_space_with_never_is_searched_as_any_other(algorithm):
    sampling = Sampling(algorithm, MIXED, 12, seed=0)
    history: list = []
    while len(history) < 12:
        point = sampling.suggest(history, 1)
        assert point == Sampling(algorithm, MIXED, 12, seed=0).suggest(history, 1)
        MIXED.check(point, "a suggestion")
        history.append((point, None if len(history) == 3 else (bowl_or_never(point),)))
    assert len({point.settled for point, _ in history}) == 12
    assert sum(point.accuracy_drop_threshold == NEVER for point, _ in history) == 1  # one point of the space


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("never_is_better", [True, False])
def test_samplers_learn_whether_never_is_better(algorithm, never_is_better):
    values = {**load_space("paper-cifar10").values, "accuracy_drop_threshold": (NEVER, 0.5, 1.5)}
    bounds = Space("mixed", values | {"final_epochs": (1.0, 4.0), "final_learning_rate": (0.01, 0.1)}).bounds
    sampling, history = Sampling(algorithm, bounds, 30, seed=0), []
    while len(history) < 30:
        point = sampling.suggest(history, 1)
        is_never = point.accuracy_drop_threshold == NEVER
        history.append((point, ((is_never != never_is_better) + point.final_epochs / 10,)))
    chosen = [point.accuracy_drop_threshold == NEVER for point, _ in history[10:]]
    assert chosen.count(never_is_better) >= 14
