"""Who may carry out what, and what is known afterwards."""

import pytest

from ice_ray.cache.actions import ActionIndex, ActionRecord, key_of
from ice_ray.engine.actions import FineTune, Measure, Outcome, UnprunedShare, next_id
from ice_ray.engine.cost import Cost

FINE_TUNE = FineTune(("step", 1), 0.1, 1, "constant", ())
OTHER_RATE = FineTune(("step", 1), 0.2, 1, "constant", ())


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def index(clock) -> ActionIndex:
    return ActionIndex(30, clock)


def record(action=FINE_TUNE, seconds: float = 1.0) -> ActionRecord:
    led_to = next_id("root", action) if isinstance(action, FineTune) else "root"
    return ActionRecord("root", action, Outcome(led_to, 0.5, Cost(seconds, 1.0)))


def test_the_first_is_granted_others_wait_and_then_all_know(index):
    assert index.ask("root", FINE_TUNE, "a") == "granted"
    assert index.ask("root", FINE_TUNE, "b") == "taken"
    assert index.ask("root", FINE_TUNE, "a") == "granted"  # begun anew by the same worker
    index.tell(record())
    assert [index.ask("root", FINE_TUNE, owner) for owner in "ab"] == [record(), record()]


def test_other_actions_and_other_snapshots_are_others(index):
    index.ask("root", FINE_TUNE, "a")
    assert index.ask("root", OTHER_RATE, "b") == "granted"
    assert index.ask("elsewhere", FINE_TUNE, "b") == "granted"
    assert index.ask("root", Measure(), "b") == "granted"


def test_a_claim_ends_with_its_lease_unless_its_owner_gives_a_sign(index, clock):
    index.ask("root", FINE_TUNE, "a")
    clock.seconds = 29
    index.renew("a")
    clock.seconds = 58
    assert index.ask("root", FINE_TUNE, "b") == "taken"
    clock.seconds = 59
    assert not index.is_taken(key_of("root", FINE_TUNE))
    assert index.ask("root", FINE_TUNE, "b") == "granted"
    assert index.is_taken(key_of("root", FINE_TUNE))
    index.renew("a")  # too late: it is b's
    assert index.ask("root", FINE_TUNE, "a") == "taken"


def test_an_owner_that_is_no_more_holds_nothing_up(index):
    for action in (FINE_TUNE, OTHER_RATE):
        index.ask("root", action, "a")
    index.ask("root", Measure(), "b")
    index.release("a")
    assert index.ask("root", FINE_TUNE, "b") == index.ask("root", OTHER_RATE, "c") == "granted"
    assert index.is_taken(key_of("root", Measure()))


def test_of_two_that_did_the_same_the_first_is_kept(index, clock):
    """With its cost: what a trial is said to have taken must not change once it has been said."""
    index.ask("root", FINE_TUNE, "a")
    clock.seconds = 40
    index.ask("root", FINE_TUNE, "b")
    index.tell(record(seconds=1.0))
    index.tell(record(seconds=2.0))
    assert index.ask("root", FINE_TUNE, "c") == record(seconds=1.0)
    assert index.records() == (record(seconds=1.0),)


def test_only_what_leads_elsewhere_is_an_origin(index):
    index.tell(record())
    index.tell(record(UnprunedShare("parameters")))
    assert index.origin(next_id("root", FINE_TUNE)) == record()
    assert index.origin("root") is None


def test_a_failure_is_known_to_all(index):
    index.ask("root", FINE_TUNE, "a")
    index.tell(ActionRecord("root", FINE_TUNE, None, "diverged"))
    assert index.ask("root", FINE_TUNE, "b") == ActionRecord("root", FINE_TUNE, None, "diverged")
