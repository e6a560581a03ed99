"""The queue over made-up trials: whoever goes on with whatever is ready, every piece is done once, and nobody waits
for ever. Devices are simulated by the tool that replays recorded costs."""

import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from scaling import Simulation


def trials_of(shapes: list[list[int]], names: dict[tuple[int, ...], int]) -> list[tuple[tuple[int, ...], ...]]:
    """Trials as paths down a tree: two of them are the same as long as their choices are."""
    return [
        tuple((names.setdefault(tuple(shape[: depth + 1]), len(names)),) for depth in range(len(shape)))
        for shape in shapes
    ]


CHOICES = st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=1, max_size=12)


@given(shapes=CHOICES, devices=st.integers(1, 20), data=st.data())
def test_every_piece_is_done_once_within_the_bounds_of_any_schedule_that_idles_for_nothing(shapes, devices, data):
    names: dict[tuple[int, ...], int] = {}
    trials = trials_of(shapes, names)
    seconds = [float(data.draw(st.integers(1, 9))) for _ in names]
    simulation = Simulation(trials, seconds, devices)
    makespan = simulation.run()
    assert simulation.executed == len(seconds)
    longest = max(sum(seconds[segment] for step in trial for segment in step) for trial in trials)
    assert max(longest, sum(seconds) / devices) <= makespan + 1e-9
    # Graham: no device idles while something is ready, so at most all work over the devices and once the longest way.
    assert makespan <= sum(seconds) / devices + longest + 1e-9


def test_a_device_takes_what_is_ready_and_waits_for_nothing_else():
    """Two trials that part after their first piece: on two devices the second begins where they part."""
    assert Simulation([((0,), (1,)), ((0,), (2,))], [3.0, 1.0, 1.0], 2).run() == 4.0
    assert Simulation([((0,), (1,)), ((2,), (3,))], [3.0, 1.0, 1.0, 1.0], 2).run() == 4.0
    assert Simulation([((0,), (1,)), ((0,), (2,))], [3.0, 1.0, 1.0], 1).run() == 5.0
