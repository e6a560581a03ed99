"""How long it still takes: parts alone count, and a part that takes its time."""

import pytest

from ice_ray.observe.pace import Pace
from ice_ray.observe.words import roughly


def test_what_comes_before_the_first_part_does_not_count():
    pace = Pace()
    assert pace.left(5, 100.0) is None
    pace.begin(100.0)
    pace.begin(150.0)  # other work of the same job begins later
    assert pace.left(5, 190.0) is None
    pace.reach(1, 200.0)
    assert pace.left(4, 200.0) == pytest.approx(400)


def test_it_counts_down_and_never_below_what_is_still_to_begin():
    pace = Pace()
    pace.begin(0.0)
    pace.reach(2, 20.0)
    assert [pace.left(3, now) for now in (20.0, 24.0, 30.0, 300.0)] == [30.0, 26.0, 20.0, 20.0]
    assert pace.left(0, 25.0) == 0.0
    pace.reach(3, 320.0)
    assert pace.left(2, 320.0) == pytest.approx(2 * 320 / 3)


def test_parts_that_are_told_twice_count_once():
    pace = Pace()
    pace.begin(0.0)
    pace.reach(2, 20.0)
    pace.reach(2, 40.0)
    assert pace.left(1, 40.0) == 0.0
    assert pace.left(2, 20.0) == 20.0


def test_a_guess_is_rounded_up():
    assert [roughly(seconds) for seconds in (0, 9.9, 10, 10.1, 51, 61, 3599)] == [
        "less than 10 s", "less than 10 s", "about 10 s", "about 20 s", "about 1 min", "about 1 min", "about 1 h",
    ]  # fmt: skip
