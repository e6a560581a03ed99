"""ICE without one of its parts: exactly that one thing is another."""

import pytest
import torch
from ice_runs import ice, paper, prepared

from ice_ray.engine.actions import FineTune
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.training.fine_tune import Recipe
from ice_ray.trials.space import load_space

POINT = IceHyperparameters(20.0, 0.5, 0.02, 5e-3, 0.15, 50)


class Watched(TorchExecutor):
    """Notes every fine-tune."""

    def run(self, snapshot, action):
        if isinstance(action, FineTune):
            self.fine_tunes.append(action)
        return super().run(snapshot, action)


@pytest.fixture(scope="module")
def fine_tunes(network, data):
    """The fine-tunes of a run by what is left out, and where they came."""
    preparation = prepared(TorchExecutor(network, data, Recipe(batch_size=64), 0, torch.device("cpu")), ratio=0.3)

    def found(**left_out: bool) -> dict[int, FineTune]:
        executor = Watched(network, data, Recipe(batch_size=64), 0, torch.device("cpu"))
        executor.fine_tunes = []
        pipeline = ice(point=POINT, ratio=0.3, **dict.fromkeys(left_out, False))
        state = pipeline.begin(executor)
        while not pipeline.is_done(executor, state):
            state = pipeline.advance(executor, state, preparation)
        return {int(action.key[1]): action for action in executor.fine_tunes}

    return found


def test_each_changes_one_thing(fine_tunes):
    whole = fine_tunes()
    assert 0 < len(whole) < 3  # the threshold decides something
    always = fine_tunes(threshold=True)
    assert set(always) == {1, 2, 3}
    assert {action.frozen for action in always.values()} == {action.frozen for action in whole.values()}
    free = fine_tunes(freezing=True)
    assert all(action.frozen == () for action in free.values())
    assert all(action.frozen for action in whole.values())
    shared = set(free) & set(whole)
    assert {step: free[step].learning_rate for step in shared} == {step: whole[step].learning_rate for step in shared}
    flat = fine_tunes(scheduler=True)
    assert {round(action.learning_rate, 4) for action in flat.values()} == {0.02}
    assert {action.frozen for action in flat.values()} == {action.frozen for action in whole.values()}
    steady = fine_tunes(threshold=True, scheduler=True)
    assert {round(action.learning_rate, 4) for action in steady.values()} == {0.02}
    assert min(action.learning_rate for action in always.values()) < 0.0151


def test_without_any_of_them_it_is_the_baseline_s_fine_tunes(fine_tunes):
    plain = fine_tunes(threshold=True, freezing=True, scheduler=True)
    assert [(step, round(action.learning_rate, 4), action.frozen) for step, action in plain.items()] == [
        (1, 0.02, ()), (2, 0.02, ()), (3, 0.02, ()),
    ]  # fmt: skip


def test_hyperparameters_that_decide_nothing_are_not_searched():
    space = load_space("paper-cifar10")
    sizes = {
        left_out: len(space.fixing(paper(**{left_out: False}).idle_hyperparameters).points())
        for left_out in ("threshold", "freezing", "scheduler")
    }
    assert sizes == {"threshold": 108, "freezing": 108, "scheduler": 8}
