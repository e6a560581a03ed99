"""What every pipeline must do: end, repeat itself, go on from anywhere, share its work."""

import dataclasses

import pytest
import torch
from ice_runs import PAPER, paper, prepared

from ice_ray.cache.actions import ActionIndex, LocalActionCache
from ice_ray.cache.executor import CachingExecutor
from ice_ray.engine.executor import Executor
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.errors import UserError
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.objective import accuracy_drop
from ice_ray.pipelines.aap import AapConfig, AapOptions
from ice_ray.pipelines.base import Pipeline
from ice_ray.pipelines.dry_run import KnownOutcomes, run_dry
from ice_ray.pipelines.imp import ImpHyperparameters, ImpOptions
from ice_ray.pipelines.layerwise import choose_removal, removal_action
from ice_ray.pipelines.records import PipelineState, Preparation
from ice_ray.pipelines.registry import PIPELINES, build_pipeline, pipeline_named
from ice_ray.training.fine_tune import Recipe
from ice_ray.trials.space import load_space

RECIPE = Recipe(batch_size=64)
CASES = [*PIPELINES, "ice, repaired", "imp, unstructured"]


def build(case: str, **changes: float) -> Pipeline:
    name = case.partition(", ")[0]
    kind = pipeline_named(name)
    own: dict[str, dict[str, object]] = {
        "ice": PAPER,
        "ice, repaired": PAPER | {"repair": "reconstruction", "criterion": "residual"},
        "aap": {"aap": AapOptions(rounds=8, images=64)},
        "imp, unstructured": {"imp": ImpOptions(form="unstructured")},
    }
    point = load_space("default", name).points()[-1 if case == "ice" else 0]
    values: dict[str, float] = {"threshold_step": 2, "learning_rate": 0.02, "phases": 2, "epochs": 1, "dense_epochs": 2}
    values |= {"final_epochs": 0.0, "final_learning_rate": 0.0} if name == "ice" else {}
    known = {key: value for key, value in (values | changes).items() if key in point.names()}
    return build_pipeline(name, kind.Config(**own.get(case, {})), dataclasses.replace(point, **known))


def new_executor(network, data) -> TorchExecutor:
    return TorchExecutor(network, data, RECIPE, 0, torch.device("cpu"))


@pytest.fixture(scope="module")
def preparation(network, data) -> Preparation:
    return prepared(new_executor(network, data))


def run(executor: Executor, pipeline: Pipeline, preparation: Preparation) -> list[PipelineState]:
    """Every state, begin and end included; each network that may be gone back to is kept."""
    states = [pipeline.begin(executor)]
    while not pipeline.is_done(executor, states[-1]):
        states.append(pipeline.advance(executor, states[-1], preparation))
        if isinstance(executor, TorchExecutor):
            executor.commit(states[-1].snapshot)
    return states


def decisions(state: PipelineState) -> list[dict[str, object]]:
    return [{k: v for k, v in record.as_dict().items() if not k.endswith("seconds")} for record in state.records]


@pytest.fixture(scope="module")
def ran(network, data, preparation):
    """Each pipeline's states and the executor they came from, made once."""
    found: dict[str, tuple[list[PipelineState], TorchExecutor]] = {}

    def states_of(case: str) -> tuple[list[PipelineState], TorchExecutor]:
        if case not in found:
            executor = new_executor(network, data)
            found[case] = run(executor, build(case), preparation), executor
        return found[case]

    return states_of


@pytest.mark.parametrize("case", CASES)
def test_it_takes_what_it_is_asked_to_and_says_what_it_did(ran, preparation, network, case):
    states, executor = ran(case)
    records = states[-1].records
    assert [record.step for record in records] == list(range(1, len(records) + 1))
    assert [len(state.records) for state in states] == list(range(len(records) + 1))
    model, dense = executor.module(states[-1].snapshot), network.build(torch.device("cpu"))
    counting = "non-zero-parameters" if "unstructured" in case else "parameters"
    assert records[-1].unpruned_share == network.unpruned_share(model, counting)
    assert records[-1].accuracy == executor.accuracy(model, executor._data.validation)
    assert all(record.drop == accuracy_drop(preparation.original_accuracy, record.accuracy) for record in records)
    kept = executor.store.get(states[-1].snapshot).kept
    widths = {layer: len(own) for layer, own in kept.items()}
    left, before = sum(widths.values()), sum(unit.filters for unit in network.units)
    if case == "aap":
        assert network.unpruned_share(model, "parameters") >= 0.5
    elif "unstructured" in case:
        assert left == before
        assert sum(int(p.count_nonzero()) for p in model.parameters()) < 0.52 * sum(
            p.numel() for p in dense.parameters()
        )
    else:
        assert left == before / 2
    assert min(widths.values()) >= 1
    assert states[-1].pruning_seconds("wall", 1.0) > 0
    assert states[-1].pruning_seconds("work", 1e9) > 0


@pytest.mark.parametrize("case", CASES)
def test_from_any_state_it_goes_on_to_the_same_bits(ran, preparation, network, data, case):
    """Through JSON, on a fresh executor that holds nothing but what the state names."""
    states, executor = ran(case)
    whole = executor.store.get(states[-1].snapshot).tensors
    for state in states[1:-1][:: max(1, len(states) // 3)]:
        fresh, pipeline = new_executor(network, data), build(case)
        for snapshot in {state.snapshot, *state.kept}:
            fresh.store.put(executor.store.get(snapshot))
        again = PipelineState.from_json(state.to_json())
        assert again == state
        while not pipeline.is_done(fresh, again):
            again = pipeline.advance(fresh, again, preparation)
            fresh.commit(again.snapshot)
            fresh.store.keep_only((again.snapshot, *again.kept))
        assert again.snapshot == states[-1].snapshot
        assert decisions(again) == decisions(states[-1])
        found = fresh.store.get(again.snapshot).tensors
        assert all(torch.equal(whole[key], value) for key, value in found.items())


@pytest.mark.parametrize("case", CASES)
def test_remembered_it_is_what_it_was_and_nothing_is_done_again(ran, preparation, network, data, case):
    """Two trials that differ in the last thing they do, on one memory from which every network goes missing."""
    states, _ = ran(case)
    index, contents = ActionIndex(), {}
    worker = CachingExecutor(new_executor(network, data), LocalActionCache(index, contents))
    pipeline = build(case)
    state = pipeline.begin(worker)
    while not pipeline.is_done(worker, state):
        state = pipeline.advance(worker, state, preparation)
        contents.clear()
    assert decisions(state) == decisions(states[-1])
    assert state.snapshot == states[-1].snapshot
    known = KnownOutcomes(network, worker.root, worker.validation_images, index)
    assert run_dry(pipeline, pipeline.begin(known), preparation, known).next is None
    done = worker.executed
    longer = build(case, final_epochs=1.5, final_learning_rate=0.01)
    run(worker, longer, preparation)
    assert 0 < worker.executed - done <= 2  # the retraining and its measurement


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_repair_is_the_same_whether_or_not_its_problem_is_known_from_the_scoring(network, data, precision):
    """On the same process after it, or on another to which the score is told."""
    recipe = dataclasses.replace(RECIPE, precision=precision)
    rule = paper(repair="least-squares", criterion="residual", calibration_images=300)
    found = []
    for scores in (True, False):
        executor = TorchExecutor(network, data, recipe, 0, torch.device("cpu"))
        if scores:
            choice, _ = choose_removal(executor, executor.root, 2, rule)
        repaired = executor.run(executor.root, removal_action(choice, 2, rule, is_last=False))
        found.append((repaired.snapshot, executor.commit(repaired.snapshot).tensors, repaired.cost.flops))
    (first, tensors, flops), (second, others, same) = found
    assert (first, flops) == (second, same)
    assert all(torch.equal(tensors[key], value) for key, value in others.items())


def test_an_option_or_a_point_of_another_pipeline_s_is_refused():
    with pytest.raises(UserError, match="pipeline imp takes its Config, not AapConfig"):
        build_pipeline("imp", AapConfig(), ImpHyperparameters(1, 1, 0.1))
    with pytest.raises(UserError, match="pipeline aap takes AapHyperparameters, not ImpHyperparameters"):
        build_pipeline("aap", AapConfig(), ImpHyperparameters(1, 1, 0.1))


def test_only_ice_s_hyperparameters_freeze():
    points = [load_space("paper-cifar10" if name == "ice" else "default", name).points()[0] for name in PIPELINES]
    freezing = [name for name, point in zip(PIPELINES, points, strict=True) if point.freezes]
    assert freezing == ["ice"]
    assert not Hyperparameters().freezes
