"""What a search tries: the points known in advance, the warm start among them, and the log of points."""

import dataclasses
import json

import pytest
from ice_runs import DIGITS

from ice_ray.errors import UserError
from ice_ray.hyperparameters import NEVER, IceHyperparameters
from ice_ray.trials.config import SearchConfig
from ice_ray.trials.proposals import PointLog, Proposals, propose
from ice_ray.trials.space import load_space

SPACE = load_space(DIGITS)
ON_GRID = SPACE.points()[5]
OFF_GRID = IceHyperparameters(0.7, 0.4, 0.02, 0.005, 0.15, 50)


@pytest.fixture
def warm(tmp_path):
    """Makes a best.json of a point and gives its path."""

    def write(point: IceHyperparameters):
        path = tmp_path / "best.json"
        path.write_text(json.dumps({"hyperparameters": point.plain()}))
        return path

    return write


def proposed(seed: int = 0, **options) -> Proposals:
    return propose(SPACE, SearchConfig(**options), seed)


def test_the_grid_is_as_the_space_samples_it():
    assert proposed().known == SPACE.points()
    assert proposed(trials=3).known == SPACE.sample(3, 0)
    assert (proposed(trials=3).total, proposed(trials=3).origin) == (3, "grid")


def test_a_warm_start_comes_first_in_the_grid_and_counts(warm):
    """Eight grid points: nine with one that is none of them, eight with one that is."""
    whole = proposed(warm_start=warm(OFF_GRID))
    assert whole.known == (OFF_GRID, *SPACE.points())
    assert proposed(warm_start=warm(OFF_GRID), trials=3).known == (OFF_GRID, *SPACE.sample(2, 0))
    assert whole.origin == "grid, warm start first"
    assert proposed(warm_start=warm(ON_GRID)).known[0] == ON_GRID
    assert sorted(map(str, proposed(warm_start=warm(ON_GRID)).known)) == sorted(map(str, SPACE.points()))
    assert len(set(proposed(warm_start=warm(ON_GRID), trials=3).known)) == 3


@pytest.mark.parametrize("algorithm", ["grid", "random", "gp"])
@pytest.mark.parametrize("rate", [0.0, 0.05])
def test_a_warm_start_that_retrained_nothing_fits_whatever_the_rates_are(algorithm, rate, warm, tmp_path):
    file = tmp_path / "space.yaml"
    values = {name: list(own) for name, own in SPACE.values.items()}
    file.write_text(json.dumps(values | {"final_epochs": [0, 4], "final_learning_rate": [0.01, 0.03]}))
    space = load_space(str(file))
    start = dataclasses.replace(ON_GRID, final_learning_rate=rate)
    config = SearchConfig(algorithm=algorithm, trials=6, warm_start=warm(start))
    found = propose(space, config, 0)
    assert found.known[0].settled == ON_GRID
    if found.sampling:  # it is told of the start, and takes no point outside of its ranges
        assert isinstance(found.sampling.suggest([(found.known[0], (1.0,))], 1), IceHyperparameters)
    else:
        assert len(set(found.known)) == 6


def test_random_draws_are_known_in_advance(warm):
    assert proposed(algorithm="random", trials=4).known == SPACE.bounds.draw(4, 0)
    started = proposed(algorithm="random", trials=4, warm_start=warm(OFF_GRID))
    assert started.known == (OFF_GRID, *SPACE.bounds.draw(3, 0))
    assert started.total == 4


@pytest.mark.parametrize("algorithm", ["tpe", "gp"])
def test_samplers_know_the_warm_start_alone(algorithm, warm):
    assert proposed(algorithm=algorithm, trials=4).known == ()
    started = proposed(algorithm=algorithm, trials=4, warm_start=warm(ON_GRID), seed=3)
    assert (started.known, started.total, started.origin) == ((ON_GRID,), 4, f"{algorithm}, warm start first")
    assert started.sampling.seed == 3


@pytest.mark.parametrize("algorithm", ["tpe", "gp"])
def test_a_search_that_starts_from_another_s_winner_does_not_try_what_that_one_tried(algorithm, warm):
    """With the same seed, as both have by default."""

    def searched(proposals: Proposals) -> list[IceHyperparameters]:
        points = list(proposals.known)
        while len(points) < proposals.total:
            history = [(point, (abs(point.accuracy_drop_threshold - 1),)) for point in points]
            points.append(proposals.sampling.suggest(history, 1))
        return points

    first = searched(proposed(algorithm=algorithm, trials=6))
    for winner in (first[0], first[5]):
        second = searched(proposed(algorithm=algorithm, trials=6, warm_start=warm(winner)))
        assert second[0] == winner
        assert not set(second[1:]) & set(first)


def test_the_probe_is_needed_where_a_trial_may_freeze():
    never = {**SPACE.values, "frozen_fraction": (0.0,)}
    for options in ({}, {"algorithm": "random", "trials": 2}, {"algorithm": "gp", "trials": 2}):
        assert proposed(**options).freezes
        assert not propose(type(SPACE)("never", never), SearchConfig(**options), 0).freezes


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "no best.json"),
        ("[]", "no best.json"),
        ("{}", "no best.json.*hyperparameters"),
        ('{"hyperparameters": {"steepness": 50}}', "missing"),
        (json.dumps({"hyperparameters": {**OFF_GRID.as_dict(), "frozen_fraction": 2}}), r"within \[0, 1\]"),
        (json.dumps({"hyperparameters": {**OFF_GRID.as_dict(), "steepness": 51}}), "steepness=51 is outside of space"),
    ],
)
def test_a_warm_start_that_cannot_be_used_is_refused(tmp_path, content, said):
    path = tmp_path / "best.json"
    path.write_text(content)
    with pytest.raises(UserError, match=f"search.warm_start .*{said}"):
        proposed(warm_start=path)
    with pytest.raises(UserError, match="no such file"):
        proposed(warm_start=tmp_path / "none.json")


def test_a_single_point_leaves_nothing_to_draw():
    single = type(SPACE)("single", {name: values[:1] for name, values in SPACE.values.items()})
    with pytest.raises(UserError, match="'single' is a single point"):
        propose(single, SearchConfig(algorithm="tpe", trials=2), 0)
    assert len(propose(single, SearchConfig(), 0).known) == 1


def test_the_log_keeps_the_order_and_refuses_other_points(tmp_path):
    log = PointLog(tmp_path / "run" / "search" / "points.json", IceHyperparameters)
    assert log.load() == ()
    log.begin((OFF_GRID,))
    assert log.append(ON_GRID) == 1
    assert log.load() == (OFF_GRID, ON_GRID)
    log.begin((OFF_GRID,))
    assert log.load() == (OFF_GRID, ON_GRID)
    with pytest.raises(UserError, match="begun with other points"):
        log.check((ON_GRID,))


MIXED = type(SPACE)(
    "mixed", {**SPACE.values, "accuracy_drop_threshold": (NEVER, *SPACE.values["accuracy_drop_threshold"])}
)


@pytest.mark.parametrize("algorithm", ["grid", "random", "tpe", "gp"])
def test_a_warm_start_may_be_never(algorithm, warm):
    config = SearchConfig(algorithm=algorithm, trials=6, warm_start=warm(IceHyperparameters()))
    found = propose(MIXED, config, 0)
    assert found.known[0] == IceHyperparameters()
    assert len(set(found.known)) == (1 if found.sampling else 6)
    if found.sampling:
        assert found.sampling.suggest([(found.known[0], (1.0,))], 1).accuracy_drop_threshold != NEVER
    with pytest.raises(UserError, match=r"accuracy_drop_threshold=never is outside of space '.*digits\.yaml'"):
        propose(SPACE, config, 0)


def test_random_draws_are_as_many_as_asked_for_though_never_is_one_point():
    found = propose(MIXED, SearchConfig(algorithm="random", trials=8), 0)
    assert len(set(found.known)) == 8
    assert sum(point.accuracy_drop_threshold == NEVER for point in found.known) == 1
    assert found.freezes


def test_the_log_says_never(tmp_path):
    log = PointLog(tmp_path / "run" / "search" / "points.json", IceHyperparameters)
    log.begin((IceHyperparameters(), ON_GRID))
    assert '"accuracy_drop_threshold": "never"' in (tmp_path / "run" / "search" / "points.json").read_text()
    assert log.append(IceHyperparameters(final_epochs=4, final_learning_rate=0.01)) == 2
    assert log.load()[:2] == (IceHyperparameters(), ON_GRID)
    log.check((IceHyperparameters(), ON_GRID))
