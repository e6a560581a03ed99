"""ICE-Pruning's decisions, and that going on from any step's snapshot equals never having stopped."""

import dataclasses

import pytest
import torch
from ice_runs import decisions, hyperparameters, ice, prepared, run

from ice_ray.engine.snapshots import Snapshot
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.pipelines.base import FinalConfig
from ice_ray.pipelines.ice import FreezeConfig, IceConfig, IcePipeline
from ice_ray.pipelines.records import PipelineState
from ice_ray.training.fine_tune import Recipe
from ice_ray.training.schedules.pruning_aware import maximum_learning_rate


def test_widths_records_and_rates(executor, preparation, network):
    pipeline = ice(0.0)
    final = run(executor, pipeline, preparation)[-1]
    left = {layer: len(filters) for layer, filters in executor.filters_left(final.snapshot).items()}
    assert left == {f"layer{n}.0.conv1": 8 * 2 ** (n - 1) for n in (1, 2, 3)}
    assert [record.filters_removed for record in final.records] == [8, 16, 32]
    shares = [record.unpruned_share for record in final.records]
    assert shares == sorted(shares, reverse=True)
    for record in final.records:
        if record.fine_tuned:
            expected = maximum_learning_rate(hyperparameters(), record.unpruned_share, 1e-3)
            assert record.learning_rate_max == expected
    assert final.records[0].accuracy_before == preparation.original_accuracy
    assert final.records[1].accuracy_before == final.records[0].accuracy


def test_fine_tuning_happens_exactly_where_the_drop_from_the_original_reaches_the_threshold(executor, preparation):
    for threshold in (0.0, 3.0, 100.0):
        for record in run(executor, ice(threshold), preparation)[-1].records:
            assert record.fine_tuned == (preparation.original_accuracy - record.accuracy_after_pruning >= threshold)


def test_a_drop_exactly_at_the_threshold_fine_tunes(executor, preparation):
    drop = run(executor, ice(100.0), preparation)[1].records[0].drop
    exact = ice(drop)
    above = ice(drop + 1e-9)
    assert drop > 0
    assert exact.advance(executor, exact.begin(executor), preparation).records[0].fine_tuned
    assert not above.advance(executor, above.begin(executor), preparation).records[0].fine_tuned


def test_a_skipped_drop_carries_over(executor, preparation):
    """With a threshold that the first step alone does not reach, the sum of drops decides, not the last one."""
    never = run(executor, ice(100.0), preparation)[-1].records
    assert [record.drop for record in never] == [preparation.original_accuracy - record.accuracy for record in never]
    threshold = never[1].drop
    assert threshold > never[0].drop
    second = run(executor, ice(threshold), preparation)[-1].records[1]
    assert second.fine_tuned
    assert second.accuracy_before - second.accuracy_after_pruning < threshold


def test_going_on_from_any_step_equals_the_unbroken_run(executor, preparation, network, data, tmp_path):
    pipeline = ice(final=FinalConfig(epochs=1))
    states = run(executor, pipeline, preparation)
    final, _ = pipeline.finish(executor, states[-1], preparation)
    unbroken = executor.commit(final.snapshot).tensors
    for number, state in enumerate(states[1:], start=1):
        executor.store.get(state.snapshot).save(tmp_path / f"{number}.safetensors")
    for number in range(1, len(states)):
        fresh = TorchExecutor(network, data, Recipe(batch_size=64), 0, torch.device("cpu"))
        fresh.store.put(Snapshot.load(tmp_path / f"{number}.safetensors"))
        state = PipelineState.from_json(states[number].to_json())
        while not pipeline.is_done(fresh, state):
            state = pipeline.advance(fresh, state, preparation)
        assert decisions(state) == decisions(states[-1])
        state, _ = pipeline.finish(fresh, state, preparation)
        assert state.snapshot == final.snapshot
        tensors = fresh.commit(state.snapshot).tensors
        assert all(torch.equal(tensors[key], unbroken[key]) for key in unbroken)


def test_the_probe_is_thrown_away_and_ranks_every_freezable_layer(executor, network, preparation):
    assert sorted(preparation.ranking) == sorted(network.freezable)
    changes = [preparation.weight_changes[layer] for layer in preparation.ranking]
    assert changes == sorted(changes)
    assert changes[0] > 0
    again = prepared(executor)
    assert dataclasses.replace(again, accuracy_seconds=0, probe_seconds=0) == dataclasses.replace(
        preparation, accuracy_seconds=0, probe_seconds=0
    )


def test_without_a_probe_nothing_is_ranked_and_nothing_trained(executor):
    found = prepared(executor, probes=False)
    assert found.ranking == ()
    assert found.probe_seconds == 0


def test_pruning_seconds_are_the_sum_of_the_steps_on_either_clock(executor, preparation):
    final = run(executor, ice(), preparation)[-1]
    by_hand = sum(
        r.scoring_seconds + r.removal_seconds + r.measuring_seconds + r.fine_tuning_seconds for r in final.records
    )
    assert final.pruning_seconds("wall", 1.0) == pytest.approx(by_hand)
    assert final.pruning_seconds("work", 1e9) == pytest.approx(sum(r.flops for r in final.records) / 1e9)


def test_freezing_the_stem_leaves_everything_below_the_lowest_trained_layer_as_it_was(executor, preparation, network):
    """Oracle: the layers before it in the network's own order."""
    ranking = tuple(sorted(network.freezable))  # shallow to deep, so that half of them lie below the others
    shallow = dataclasses.replace(preparation, ranking=ranking)
    free = ice(0.0)
    cut = ice(0.0, freeze=FreezeConfig(stem=True))
    results = {}
    for name, pipeline in (("free", free), ("cut", cut)):
        state = pipeline.advance(executor, pipeline.begin(executor), shallow)
        results[name] = executor.module(state.snapshot).state_dict(), state.records[0]
    trained = {
        name: {
            key
            for key, dense in network.build(executor.device).state_dict().items()
            if "running" not in key
            and "batches" not in key
            and tensors[key].shape == dense.shape
            and not torch.equal(tensors[key], dense)
        }
        for name, (tensors, _) in results.items()
    }
    lowest = ranking[len(ranking) // 2]
    assert lowest == "layer2.0.conv2"
    below = ("conv1", "bn1", "layer1", "layer2.0.conv1", "layer2.0.bn1")
    assert not any(key.startswith(below) for key in trained["cut"])
    assert {"conv1.weight", "bn1.weight"} <= trained["free"]
    assert {"layer2.0.conv2.weight", "layer3.0.bn2.weight"} <= trained["cut"]
    assert results["cut"][1].flops < 0.9 * results["free"][1].flops


@pytest.mark.parametrize(
    ("point", "final", "trains"),
    [
        (IceHyperparameters(), FinalConfig(), False),
        (IceHyperparameters(), FinalConfig(epochs=1, rate=0.01), True),
        (dataclasses.replace(IceHyperparameters(), final_epochs=1, final_learning_rate=0.01), FinalConfig(), True),
        (
            dataclasses.replace(hyperparameters(), accuracy_drop_threshold=100.0, frozen_fraction=0.0),
            FinalConfig(),
            True,
        ),
    ],
)
def test_a_pipeline_that_only_repairs_says_that_it_trains_nothing(point, final, trains):
    config = IceConfig(final=final)
    assert IcePipeline(config=config, hyperparameters=point).trains == trains
