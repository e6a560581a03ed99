"""How often a forward pass is timed."""

import time

import pytest
import torch
from torch import nn

from ice_ray.engine.latency import latencies, latencies_in_turn

CPU = torch.device("cpu")


class Slow(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.passes = seconds, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        time.sleep(self.seconds)
        return images


def test_every_pass_is_as_long_as_it_takes():
    model = Slow(0.002)
    times = latencies(model, (3, 4, 4), 2, CPU, "fp32", repeats=7)
    assert (len(times), model.passes) == (7, 12)
    assert min(times) >= 2


@pytest.mark.parametrize(("repeats", "fewest"), [(50, 3), (2, 2)])
def test_slow_passes_are_few(repeats, fewest):
    """One that warms up, and no less than three."""
    model = Slow(0.05)
    assert len(latencies(model, (3, 4, 4), 2, CPU, "fp32", repeats=repeats, seconds=0.01)) == fewest
    assert model.passes == 1 + fewest


def test_networks_that_are_compared_take_turns():
    turns: list[str] = []

    class Named(nn.Identity):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if turns[-1:] != [self.name]:
                turns.append(self.name)
            return images

    times = latencies_in_turn([Named("a"), Named("b")], (3, 4, 4), 2, CPU, "fp32", repeats=20)
    assert [len(own) for own in times] == [20, 20]
    assert turns == ["a", "b"] * 5


def test_no_round_begins_once_the_time_is_over():
    model = Slow(0.02)
    (times,) = latencies_in_turn([model], (3, 4, 4), 2, CPU, "fp32", seconds=0.05)
    assert len(times) == 3
