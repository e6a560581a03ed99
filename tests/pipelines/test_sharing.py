"""Trials that share what they have in common are, bit for bit, the trials that they would have been alone."""

import dataclasses
import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ice_runs import ice, prepared

from ice_ray.cache.actions import ActionIndex, LocalActionCache
from ice_ray.cache.executor import CachingExecutor, TakenError
from ice_ray.engine.actions import FineTune
from ice_ray.engine.fine_tuning import FineTuner
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.errors import DivergedError, RunError
from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.pipelines.dry_run import DryRun, KnownOutcomes, run_dry
from ice_ray.pipelines.ice import IcePipeline
from ice_ray.pipelines.records import PipelineState, Preparation
from ice_ray.training.fine_tune import Recipe

GRID = [
    IceHyperparameters(threshold, frozen, rate, reduction, midpoint, 50)
    for threshold, frozen, rate, reduction, midpoint in itertools.product(
        (0.0, 6.0), (0.3, 0.9), (0.02, 0.05), (5e-3, 8e-3), (0.15, 0.4)
    )
]


def new_executor(network, data) -> TorchExecutor:
    return TorchExecutor(network, data, Recipe(batch_size=64), 0, torch.device("cpu"))


@pytest.fixture(scope="module")
def preparation(network, data) -> Preparation:
    return prepared(new_executor(network, data))


def decisions(state: PipelineState) -> list[dict[str, object]]:
    return [{k: v for k, v in record.as_dict().items() if not k.endswith("seconds")} for record in state.records]


class Unshared:
    """Each point's run alone, made once."""

    def __init__(self, network, data, preparation) -> None:
        self._new, self._preparation, self._found = lambda: new_executor(network, data), preparation, {}

    def __call__(self, pipeline: IcePipeline) -> tuple[PipelineState, dict[str, torch.Tensor]]:
        if pipeline not in self._found:
            executor = self._new()
            state = pipeline.begin(executor)
            while not pipeline.is_done(executor, state):
                state = pipeline.advance(executor, state, self._preparation)
            tensors = {key: value.clone() for key, value in executor.module(state.snapshot).state_dict().items()}
            self._found[pipeline] = state, tensors
        return self._found[pipeline]


@pytest.fixture(scope="module")
def alone(network, data, preparation) -> Unshared:
    return Unshared(network, data, preparation)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_any_grid_in_any_order_on_any_worker_forgetting_any_network(network, data, preparation, alone, draw):
    tolerance = draw.draw(st.sampled_from([0.0, 1e-3]))
    points = draw.draw(st.lists(st.sampled_from(GRID), min_size=2, max_size=5))
    pipelines = [ice(point=point, lr_tolerance=tolerance) for point in points]
    index, contents = ActionIndex(), {}
    workers = [
        CachingExecutor(new_executor(network, data), LocalActionCache(index, contents, owner)) for owner in ("a", "b")
    ]
    states = [pipeline.begin(workers[0]) for pipeline in pipelines]
    while open_trials := [n for n, each in enumerate(pipelines) if not each.is_done(workers[0], states[n])]:
        trial = draw.draw(st.sampled_from(open_trials))
        worker = draw.draw(st.sampled_from(workers))
        states[trial] = pipelines[trial].advance(worker, states[trial], preparation)
        for forgotten in draw.draw(st.sets(st.sampled_from(sorted(contents)))) if contents else ():
            del contents[forgotten]
    for pipeline, state in zip(pipelines, states, strict=True):
        expected, tensors = alone(pipeline)
        assert decisions(state) == decisions(expected)
        assert state.snapshot == expected.snapshot
        if state.snapshot in contents:
            assert all(torch.equal(tensors[key], value) for key, value in contents[state.snapshot].tensors.items())
    asked, executed = (sum(getattr(worker, name) for worker in workers) for name in ("asked", "executed"))
    assert executed == len(index.records()) < asked  # the first step's removal alone is everybody's


def test_a_trial_takes_as_long_as_it_would_have_alone(network, data, preparation):
    """Its seconds are those of its steps, wherever they ran: the second of two equal trials inherits the first's."""
    worker = CachingExecutor(new_executor(network, data), LocalActionCache(ActionIndex(), {}))
    pipeline = ice(point=GRID[0])
    first, second = (full_run(pipeline, worker, preparation) for _ in range(2))
    assert first == second
    assert worker.executed == worker.asked / 2
    assert first.pruning_seconds("wall", 1.0) > 0


def full_run(pipeline, worker, preparation) -> PipelineState:
    state = pipeline.begin(worker)
    while not pipeline.is_done(worker, state):
        state = pipeline.advance(worker, state, preparation)
    return state


def test_a_dry_run_goes_as_far_as_outcomes_are_known(network, data, preparation):
    executor, index = new_executor(network, data), ActionIndex()
    worker = CachingExecutor(executor, LocalActionCache(index, {}))
    known = KnownOutcomes(network, executor.root, executor.validation_images, index)
    pipeline, sibling = (
        ice(point=GRID[0]),
        ice(point=dataclasses.replace(GRID[0], frozen_fraction=0.9)),
    )
    begin = pipeline.begin(worker)
    assert run_dry(pipeline, begin, preparation, known).state == begin
    first_step = pipeline.advance(worker, begin, preparation)
    dry_run = run_dry(pipeline, begin, preparation, known)
    assert dry_run.state == first_step
    assert worker.asked == worker.executed
    assert worker.asked == len(index.records())
    # The sibling removes and measures what was removed and measured, and then fine-tunes something else.
    fine_tune = run_dry(sibling, begin, preparation, known)
    assert fine_tune.state == begin
    assert fine_tune.next not in (None, dry_run.next)
    whole = full_run(pipeline, worker, preparation)
    assert run_dry(pipeline, first_step, preparation, known) == DryRun(whole, None, whole.snapshot)


def test_a_dry_run_that_diverges_has_ended(network, data, preparation):
    executor, index = new_executor(network, data), ActionIndex()
    worker = CachingExecutor(executor, LocalActionCache(index, {}))
    hopeless = ice(point=dataclasses.replace(GRID[0], base_learning_rate=1e30))
    with pytest.raises(DivergedError):
        hopeless.advance(worker, hopeless.begin(worker), preparation)
    known = KnownOutcomes(network, executor.root, executor.validation_images, index)
    dry_run = run_dry(hopeless, hopeless.begin(worker), preparation, known)
    assert dry_run.next is None


def test_what_another_is_at_is_waited_for_and_not_done_twice(network, data, preparation):
    index, contents = ActionIndex(), {}
    first, second = (
        CachingExecutor(new_executor(network, data), LocalActionCache(index, contents, owner)) for owner in ("a", "b")
    )
    pipeline = ice(point=GRID[0])
    before = pipeline.begin(first)
    complete = pipeline.advance(first, before, preparation)
    fine_tune = next(action_record for action_record in index.records() if isinstance(action_record.action, FineTune))
    shared = ActionIndex()
    for action_record in itertools.takewhile(lambda action_record: action_record != fine_tune, index.records()):
        shared.tell(action_record)
    assert shared.ask(fine_tune.snapshot, fine_tune.action, "a") == "granted"  # a is at it, and then it is killed
    second = CachingExecutor(new_executor(network, data), LocalActionCache(shared, {}, "b"))
    with pytest.raises(TakenError):
        pipeline.advance(second, before, preparation)
    assert second.executed == 0
    shared.release("a")
    assert decisions(pipeline.advance(second, before, preparation)) == decisions(complete)


def test_a_fine_tune_that_diverges_is_tried_once(network, data, preparation):
    index = ActionIndex()
    hopeless = ice(point=dataclasses.replace(GRID[0], base_learning_rate=1e30))
    said = []
    for owner in ("a", "b"):
        worker = CachingExecutor(new_executor(network, data), LocalActionCache(index, {}, owner))
        with pytest.raises(DivergedError) as caught:
            hopeless.advance(worker, hopeless.begin(worker), preparation)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert worker.executed == 0


def test_a_worker_that_fails_holds_nothing_up(network, data, preparation, monkeypatch):
    index = ActionIndex()
    worker = CachingExecutor(new_executor(network, data), LocalActionCache(index, {}, "a"))
    pipeline = ice(point=GRID[0])
    with monkeypatch.context() as patch:
        patch.setattr(FineTuner, "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pipeline.advance(worker, pipeline.begin(worker), preparation)
    other = CachingExecutor(new_executor(network, data), LocalActionCache(index, {}, "b"))
    assert pipeline.advance(other, pipeline.begin(other), preparation).records[0].fine_tuned


def test_a_snapshot_of_another_history_is_refused(network, data):
    worker = CachingExecutor(new_executor(network, data), LocalActionCache(ActionIndex(), {}))
    with pytest.raises(RunError, match="not remembered"):
        worker.run("of another run", FineTune(("step", 1), 0.1, 1, "constant", ()))
