"""IMP: sparsities by phase, the two forms, masks that hold, the budget of the dense training."""

import copy
import dataclasses

import pytest
import torch

from ice_ray.engine.actions import Prune
from ice_ray.errors import UserError
from ice_ray.pipelines.imp import (
    BimpHyperparameters,
    BimpPipeline,
    ImpConfig,
    ImpHyperparameters,
    ImpOptions,
    ImpPipeline,
)
from ice_ray.pipelines.records import PipelineState
from ice_ray.pruning.masking import maskable_weights
from ice_ray.pruning.removal import remove_filters
from ice_ray.trials.sampler import Sampling
from ice_ray.trials.space import load_space


def pipeline(goal: float = 0.5, phases: int = 1, **config) -> ImpPipeline:
    own = ImpConfig(ratio=goal, imp=ImpOptions(**config))
    return ImpPipeline(config=own, hyperparameters=ImpHyperparameters(phases, 1, 0.02))


@pytest.fixture
def preparation(executor):
    return pipeline().prepare(executor, False)


def run(executor, own: ImpPipeline, preparation) -> list[PipelineState]:
    states = [own.begin(executor)]
    while not own.is_done(executor, states[-1]):
        states.append(own.advance(executor, states[-1], preparation))
        executor.commit(states[-1].snapshot)
    return states


def test_each_phase_takes_the_same_share_of_what_remains():
    """S = 1 - 1/8 in three phases: half of what is left each time."""
    own = pipeline(goal=0.875, phases=3)
    assert [own.gone_after(phase) for phase in range(4)] == pytest.approx([0, 0.5, 0.75, 0.875])
    assert pipeline(goal=0.6).gone_after(1) == 0.6


def test_sparsities_are_what_the_phases_ask_for(executor, preparation):
    """Of 16 + 32 + 64 = 112 filters 84 are left after the first of two phases to 9/16, then 63."""
    states = run(executor, pipeline(goal=1 - 9 / 16, phases=2), preparation)
    left = [sum(map(len, executor.store.get(state.snapshot).kept.values())) for state in states[1:]]
    assert left == [84, 63]
    assert [record.filters_removed for record in states[-1].records] == [28, 21]
    masked = run(executor, pipeline(goal=0.75, phases=2, form="unstructured"), preparation)
    for state, goal in zip(masked[1:], (0.5, 0.75), strict=True):
        weights = maskable_weights(executor.module(state.snapshot)).values()
        zero = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
        assert zero == pytest.approx(goal, abs=1e-4)


def test_filters_are_ranked_by_root_mean_square_over_all_layers(executor, preparation):
    """Oracle: every filter's, sorted by hand."""
    model = executor.network.build(torch.device("cpu"))
    values = {
        (unit.layer, place): float(weight.detach().square().mean().sqrt())
        for unit in executor.network.units
        for place, weight in enumerate(model.get_parameter(f"{unit.layer}.weight"))
    }
    gone = sorted(values, key=values.__getitem__)[:56]
    state = run(executor, pipeline(), preparation)[-1]
    widths = {layer: len(own) for layer, own in executor.store.get(state.snapshot).kept.items()}
    assert {layer: dense - sum(name == layer for name, _ in gone) for layer, dense in (
        ("layer1.0.conv1", 16), ("layer2.0.conv1", 32), ("layer3.0.conv1", 64),
    )} == widths  # fmt: skip


def test_the_physical_model_and_its_masked_twin_give_the_same_logits(executor, data):
    """Filters removed, against the same filters silenced: weights, norm and all."""
    gone = {"layer1.0.conv1": (0, 3, 7), "layer2.0.conv1": (1, 30), "layer3.0.conv1": tuple(range(0, 64, 3))}
    pruned = executor.run(executor.root, Prune(tuple(gone.items())))
    physical = copy.deepcopy(executor.module(pruned.snapshot))
    twin = executor.network.build(torch.device("cpu"))
    with torch.no_grad():
        for layer, filters in gone.items():
            norm = executor.network.norms[layer]
            for name in (f"{layer}.weight", f"{norm}.weight", f"{norm}.bias"):
                twin.get_parameter(name)[list(filters)] = 0
    images = torch.randn(16, *executor.network.image_shape)
    torch.testing.assert_close(physical(images), twin(images), atol=1e-5, rtol=1e-5)
    again = executor.network.build(torch.device("cpu"))
    remove_filters(again, executor.network.image_shape, gone)
    assert torch.equal(again(images), physical(images))


def test_what_is_zero_stays_zero_while_the_rest_trains(executor, preparation):
    own = pipeline(phases=2, form="unstructured")
    longer = dataclasses.replace(own.hyperparameters, final_epochs=1, final_learning_rate=0.02)
    states = run(executor, dataclasses.replace(own, hyperparameters=longer), preparation)
    first, second, last = (executor.store.get(state.snapshot).tensors for state in states[1:])
    dense = executor.network.build(torch.device("cpu"))
    moved = 0
    for name in maskable_weights(dense):
        zero = first[name] == 0
        assert bool((second[name][zero] == 0).all())
        assert bool((last[name][second[name] == 0] == 0).all())
        moved += int((second[name][~zero] != first[name][~zero]).sum())
    assert moved > 10_000


def test_a_budgeted_run_trains_from_nothing_and_learns_nothing_from_the_trained_model(executor, preparation):
    point = BimpHyperparameters(1, 1, 0.05, 3)
    own = BimpPipeline(hyperparameters=point)
    states = run(executor, own, preparation)
    first = states[1].records[0]
    assert (first.layers, first.epochs, first.filters_removed) == ("dense training", 3, 0)
    trained, given = executor.store.get(states[1].snapshot).tensors, executor.network.build(torch.device("cpu"))
    angle = torch.cosine_similarity(trained["conv1.weight"].flatten(), given.conv1.weight.detach().flatten(), dim=0)
    assert abs(float(angle)) < 0.5
    assert first.accuracy > 40
    assert len(states[-1].records) == 2
    # A fine-tune with a teacher costs a teacher's passes more.
    taught = run(executor, pipeline(), preparation)[-1].records[-1]
    per_image = taught.flops / states[-1].records[-1].flops
    assert 1.1 < per_image < 1.7


def test_hyperparameters_outside_their_ranges():
    for values in ((0, 1, 0.1), (1.5, 1, 0.1), (1, 0, 0.1), (1, 1, 0)):
        with pytest.raises(UserError):
            ImpHyperparameters(*values)
    with pytest.raises(UserError):
        BimpHyperparameters(1, 1, 0.1, 0)


@pytest.mark.parametrize("text", ["", "0", "0:1,0.5", "0.1:1", "0:2", "0:1,0.5:0.1,0.5:0.01", "0:1,1:0.1", "a:b"])
def test_a_dense_schedule_that_is_none_is_refused(text):
    with pytest.raises(UserError, match="dense schedule"):
        ImpOptions(dense_schedule=text)


def test_phases_are_whole_numbers_wherever_they_are_drawn():
    bounds = load_space("default", "imp").bounds
    drawn = bounds.draw(60, 0)
    assert {point.phases for point in drawn} == {1, 2, 3}
    assert {point.phases for point in drawn} == {float(int(point.phases)) for point in drawn}
    history = []
    for _ in range(6):
        point = Sampling("tpe", bounds, 6, 0).suggest(history, 1)
        history.append((point, (point.epochs,)))
        assert point.phases in (1, 2, 3)
