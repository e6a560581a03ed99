"""Networks that end the process they are in: seen in a process apart, and survived where that can be."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from ice_runs import PAPER
from torch import nn

from ice_ray import IceHyperparameters, PruningData, prune
from ice_ray.engine import opening as opening_module
from ice_ray.engine.forked import DiedError, LeftUndoneError, SlowError, run_forked
from ice_ray.engine.opening import open_module, trained_for_a_step
from ice_ray.errors import UserError

SHAPE = (3, 8, 8)
HYPERPARAMETERS = IceHyperparameters(1.0, 0.3, 0.02, 5e-3, 0.15, 50)
OPTIONS = PAPER | {"batch_size": 64}


class Deadly(torch.autograd.Function):
    """A backward pass that really ends the process, where a condition on what it reads is met."""

    @staticmethod
    def forward(context, maps, condition, number):
        context.kills, context.number = condition(maps), number
        return maps.clone()

    @staticmethod
    def backward(context, gradient):
        if context.kills:
            os.kill(os.getpid(), context.number)
        return gradient, None, None


class Network(nn.Module):
    """Its answers are those of a plain chain."""

    def __init__(self, condition, number: int = signal.SIGSEGV) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 10)
        self.condition, self.number = condition, number

    def forward(self, images):
        maps = Deadly.apply(self.first(images), self.condition, self.number)
        return self.head(self.second(maps).mean((2, 3)))


def always(maps) -> bool:
    return True


def in_channels_last(maps) -> bool:
    return not maps.is_contiguous()


def with_few_channels(maps) -> bool:
    return maps.shape[1] == 4


def few_in_channels_last(maps) -> bool:
    return with_few_channels(maps) and in_channels_last(maps)


def few_in_half_precision(maps) -> bool:
    return with_few_channels(maps) and torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGSEGV, "SIGSEGV, a segmentation fault"),
        (signal.SIGKILL, "SIGKILL, most likely because memory did not suffice"),
        (signal.SIGABRT, "SIGABRT"),
    ],
)
def test_a_death_is_one_line(number, said):
    with pytest.raises(UserError, match=rf"^the model ended the process .* \({said}\).*another") as refused:
        open_module(Network(always, number), SHAPE)
    assert len(str(refused.value).splitlines()) == 1


def test_a_network_that_survives_in_the_other_layout_is_used_in_it(data: PruningData):
    opened = open_module(Network(in_channels_last), SHAPE)
    assert opened.network.layout == "contiguous"
    assert opened.note is not None
    assert "contiguous memory layout, which it survives" in opened.note
    with pytest.warns(UserWarning, match="contiguous memory layout"):
        result = prune(
            Network(in_channels_last), data, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="cpu", **OPTIONS
        )
    assert [record.filters_removed for record in result.records] == [4, 4]


def test_a_death_at_the_pruned_widths_alone_is_seen_before_the_start(data: PruningData):
    widths = {"first.0": 4, "second.0": 4}
    opened = open_module(Network(few_in_channels_last), SHAPE)
    assert opened.network.layout == "channels_last"
    trained = trained_for_a_step(opened, widths, "fp32")
    assert trained.network.layout == "contiguous"
    with pytest.raises(UserError, match=r"for a step in bf16 .*SIGSEGV.*take precision fp32, which it survives"):
        trained_for_a_step(open_module(Network(few_in_half_precision), SHAPE), widths, "bf16")
    with pytest.raises(UserError, match="neither another memory layout nor precision fp32"):
        prune(Network(with_few_channels), data, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="cpu", **OPTIONS)


class DeadlyAnswer(Network):
    def forward(self, images):
        os.kill(os.getpid(), signal.SIGSEGV)


def test_a_death_before_any_backward_pass_is_one_line_too():
    with pytest.raises(UserError, match=r"ended the process that asked it for logits \(SIGSEGV"):
        open_module(DeadlyAnswer(always), SHAPE)


class Hanging(Network):
    def forward(self, images):
        while True:
            time.sleep(0.1)


def test_a_network_that_never_answers_is_named(monkeypatch):
    monkeypatch.setattr(opening_module, "SECONDS_TO_ANSWER", 1.0)
    with pytest.raises(UserError, match="the model cannot be asked: it had not ended after 1 seconds"):
        open_module(Hanging(always), SHAPE)


def test_what_is_done_apart_changes_nothing_here():
    held = [1]

    def work():
        held.append(2)
        print("not to be seen")
        return {"sum": sum(held)}

    assert run_forked(work, 60) == {"sum": 3}
    assert held == [1]
    with pytest.raises(UserError, match="a fault"):
        run_forked(lambda: (_ for _ in ()).throw(UserError("a fault")), 60)
    with pytest.raises(LeftUndoneError, match="ZeroDivisionError"):
        run_forked(lambda: 1 / 0, 60)
    with pytest.raises(SlowError):
        run_forked(lambda: time.sleep(60), 0.2)
    with pytest.raises(DiedError, match="by itself"):
        run_forked(lambda: os._exit(3), 60)
    answer = "x" * 1_000_000  # more than a pipe holds
    assert run_forked(lambda: answer, 60) == answer


AFTER_THE_COMPILER = """
import torch
import torch._dynamo
torch.compile(torch.nn.Linear(2, 2), backend="eager")(torch.ones(1, 2)).sum().backward()  # before anything of ours
from ice_ray.engine.forked import run_forked
layer = torch.nn.Linear(2, 2)
assert run_forked(lambda: layer(torch.ones(1, 2)).sum().backward() or 5, 60) == 5
"""


@pytest.mark.slow
def test_where_copies_have_no_gradients_the_work_is_done_here():
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", AFTER_THE_COMPILER], check=False).returncode == 0


def test_it_computes_after_threads_have_been_started_here():
    """Those of the other process are not there; neither may be waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        layer = nn.Conv2d(16, 64, 3)
        layer(torch.randn(8, 16, 64, 64)).sum().backward()
        found = run_forked(lambda: layer(torch.ones(8, 16, 64, 64)).sum().backward() or torch.get_num_threads(), 60)
    finally:
        torch.set_num_threads(threads)
    assert found == 1
