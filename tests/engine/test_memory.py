"""Who may carry out what, and what is known afterwards."""

import pytest

from ice_ray.engine.actions import Measure, Outcome, Recover, UnprunedShare, next_id
from ice_ray.engine.cost import Cost
from ice_ray.engine.memory import Deed, MemoryIndex, key_of

RECOVER = Recover(("step", 1), 0.1, 1, "constant", ())
OTHER_RATE = Recover(("step", 1), 0.2, 1, "constant", ())


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def index(clock) -> MemoryIndex:
    return MemoryIndex(30, clock)


def deed(action=RECOVER, seconds: float = 1.0) -> Deed:
    led_to = next_id("root", action) if isinstance(action, Recover) else "root"
    return Deed("root", action, Outcome(led_to, 0.5, Cost(seconds, 1.0)))


def test_the_first_is_granted_others_wait_and_then_all_know(index):
    assert index.ask("root", RECOVER, "a") == "granted"
    assert index.ask("root", RECOVER, "b") == "taken"
    assert index.ask("root", RECOVER, "a") == "granted"  # begun anew by the same worker
    index.tell(deed())
    assert [index.ask("root", RECOVER, owner) for owner in "ab"] == [deed(), deed()]


def test_other_actions_and_other_snapshots_are_others(index):
    index.ask("root", RECOVER, "a")
    assert index.ask("root", OTHER_RATE, "b") == "granted"
    assert index.ask("elsewhere", RECOVER, "b") == "granted"
    assert index.ask("root", Measure(), "b") == "granted"


def test_a_claim_ends_with_its_lease_unless_its_owner_gives_a_sign(index, clock):
    index.ask("root", RECOVER, "a")
    clock.seconds = 29
    index.renew("a")
    clock.seconds = 58
    assert index.ask("root", RECOVER, "b") == "taken"
    clock.seconds = 59
    assert not index.is_taken(key_of("root", RECOVER))
    assert index.ask("root", RECOVER, "b") == "granted"
    assert index.is_taken(key_of("root", RECOVER))
    index.renew("a")  # too late: it is b's
    assert index.ask("root", RECOVER, "a") == "taken"


def test_an_owner_that_is_no_more_holds_nothing_up(index):
    for action in (RECOVER, OTHER_RATE):
        index.ask("root", action, "a")
    index.ask("root", Measure(), "b")
    index.release("a")
    assert index.ask("root", RECOVER, "b") == index.ask("root", OTHER_RATE, "c") == "granted"
    assert index.is_taken(key_of("root", Measure()))


def test_of_two_that_did_the_same_the_first_is_kept(index, clock):
    """With its cost: what a trial is said to have taken must not change once it has been said."""
    index.ask("root", RECOVER, "a")
    clock.seconds = 40
    index.ask("root", RECOVER, "b")
    index.tell(deed(seconds=1.0))
    index.tell(deed(seconds=2.0))
    assert index.ask("root", RECOVER, "c") == deed(seconds=1.0)
    assert index.deeds() == (deed(seconds=1.0),)


def test_only_what_leads_elsewhere_is_an_origin(index):
    index.tell(deed())
    index.tell(deed(UnprunedShare("parameters")))
    assert index.origin(next_id("root", RECOVER)) == deed()
    assert index.origin("root") is None


def test_a_failure_is_known_to_all(index):
    index.ask("root", RECOVER, "a")
    index.tell(Deed("root", RECOVER, None, "diverged"))
    assert index.ask("root", RECOVER, "b") == Deed("root", RECOVER, None, "diverged")
