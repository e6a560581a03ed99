"""Which trial goes on."""

from hypothesis import given
from hypothesis import strategies as st

from ice_ray.pipelines.dry_run import DryRun
from ice_ray.pipelines.records import PipelineState
from ice_ray.trials.trial_queue import choose_trial


def dry_run(steps: int, following: str | None) -> DryRun:
    return DryRun(PipelineState("snapshot", ("record",) * steps), following, "snapshot")  # type: ignore[arg-type]


def test_what_is_known_whole_comes_first():
    assert choose_trial({0: dry_run(1, "a"), 1: dry_run(9, None)}, ()) == 1


def test_the_longest_way_comes_before_the_most_wanted():
    waiting = {0: dry_run(3, "a"), 1: dry_run(3, "a"), 2: dry_run(2, "b")}
    assert choose_trial(waiting, ()) == 2
    assert choose_trial(waiting, {"b"}) == 0


def test_of_equal_ways_the_most_wanted_is_taken():
    assert choose_trial({0: dry_run(2, "a"), 1: dry_run(2, "b"), 2: dry_run(2, "b")}, ()) == 1


def test_where_others_are_at_everything_nothing_starts():
    assert choose_trial({0: dry_run(2, "a"), 1: dry_run(3, "a")}, {"a"}) is None
    assert choose_trial({}, ()) is None


@given(
    st.dictionaries(st.integers(0, 20), st.builds(dry_run, st.integers(0, 9), st.sampled_from("abcde") | st.none())),
    st.sets(st.sampled_from("abcde")),
)
def test_nobody_waits_where_somebody_could_go_on(waiting, at_work):
    chosen = choose_trial(waiting, at_work)
    free = [index for index, each in waiting.items() if each.next not in at_work]
    assert (chosen in free) if free else chosen is None
