"""IMP's schedules against values worked by hand, at the first, a middle and the last iteration."""

import pytest

from ice_ray.training.schedules.retraining import (
    RETRAININGS,
    DenseSchedule,
    RetrainingPlan,
    parse_milestones,
    rate_at,
    retraining_plan,
    same_retraining,
)

DENSE = DenseSchedule(100, ((0.0, 1.0), (0.5, 0.1), (0.8, 0.01)))
FIRST, MIDDLE, LAST = 0.0, 0.55, 0.999


def plan(name: str, epochs: float = 40, lost: float = 0.1, pruned: float = 0.25) -> RetrainingPlan:
    return retraining_plan(name, DENSE, epochs, lost, pruned)


@pytest.mark.parametrize(
    ("name", "first", "middle", "last"),
    [
        ("ft", 0.01, 0.01, 0.01),
        ("lrw", 0.1, 0.01, 0.01),  # epochs 60 to 100 of the dense run: .1 until 80
        ("slr", 0.0, 0.1, 0.01),  # half of the dense run is left at .55: after a tenth of warming up
        ("clr", 0.0, 0.505, 0.01),  # half a cosine from 1 to .01: half way at .55
        ("llr", 0.0, 0.5, 0.0),
        ("allr", 0.0, 0.2, 0.0),  # d1 = .1 / sqrt(.25) = .2, d2 = .4: times .4
    ],
)
def test_rates_are_those_worked_by_hand(name, first, middle, last):
    found = [rate_at(plan(name), progress) for progress in (FIRST, MIDDLE, LAST)]
    assert found == pytest.approx([first, middle, last], abs=2e-3)


def test_warming_up_takes_a_tenth():
    for name in ("slr", "clr", "llr"):
        assert rate_at(plan(name), 0.05) == pytest.approx(0.5)
        assert rate_at(plan(name), 0.1) == pytest.approx(1.0)


def test_rewinding_by_more_than_there_was_replays_it_all():
    long = plan("lrw", epochs=200)
    assert rate_at(long, 0.0) == 1.0
    assert rate_at(long, 0.51) == 0.1


def test_allr_goes_by_the_larger_of_distance_and_budget_and_never_above_1():
    assert plan("allr", epochs=1, lost=0.3, pruned=0.36).rate == pytest.approx(0.5)  # .3 / .6
    assert plan("allr", epochs=70, lost=0.3, pruned=0.36).rate == pytest.approx(0.7)
    assert plan("allr", epochs=300, lost=0.9, pruned=0.36).rate == 1.0


def test_schedules_that_come_to_the_same_are_known_to():
    for epochs, same in ((20, True), (21, False)):
        assert same_retraining(plan("ft", epochs), plan("lrw", epochs)) == same
    distinct = [plan(name) for name in RETRAININGS]
    assert not any(same_retraining(a, b) for i, a in enumerate(distinct) for b in distinct[:i])


def test_milestones_are_read():
    assert parse_milestones("0:1,0.5:0.1") == ((0.0, 1.0), (0.5, 0.1))
