"""ICE-Pruning's decisions, and that going on from any step's snapshot equals never having stopped."""

import dataclasses
from typing import Any

import pytest
import torch

from ice_ray.engine.actions import Checks, Measure, Recover, next_id
from ice_ray.engine.executor import Executor
from ice_ray.engine.snapshots import Snapshot
from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.pipelines.base import RecoveryPlan
from ice_ray.pipelines.ice import IcePipeline
from ice_ray.pipelines.prepare import FreezeConfig, prepare
from ice_ray.pipelines.records import FINAL_RETRAINING, PipelineState, Preparation
from ice_ray.pipelines.removal_choice import RemovalRule
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.freezing import frozen_layers
from ice_ray.training.fine_tune import Recipe
from ice_ray.training.schedules.pruning_aware import maximum_learning_rate

RULE = RemovalRule(Amounts(0.5))


def hyperparameters(threshold: float = 3.0) -> IceHyperparameters:
    return IceHyperparameters(threshold, 0.5, 0.02, 5e-3, 0.15, 50)


def ice(threshold: float = 3.0, rule: RemovalRule = RULE, **options: Any) -> IcePipeline:
    return IcePipeline(removal=rule, hyperparameters=hyperparameters(threshold), **options)


def run(executor: Executor, pipeline: IcePipeline, preparation: Preparation) -> list[PipelineState]:
    states = [pipeline.begin(executor)]
    while not pipeline.is_done(executor, states[-1]):
        states.append(pipeline.advance(executor, states[-1], preparation))
        executor.commit(states[-1].snapshot)
    return states


def decisions(state: PipelineState) -> list[tuple[object, ...]]:
    """Everything in the records but seconds."""
    return [tuple(v for k, v in record.as_dict().items() if not k.endswith("seconds")) for record in state.records]


@pytest.fixture
def preparation(executor) -> Preparation:
    return prepare(executor, RULE, FreezeConfig(), True)


def test_widths_records_and_rates(executor, preparation, network):
    pipeline = ice(0.0)
    final = run(executor, pipeline, preparation)[-1]
    assert executor.store.get(final.snapshot).widths == {f"layer{n}.0.conv1": 8 * 2 ** (n - 1) for n in (1, 2, 3)}
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
    pipeline = ice(recovery=RecoveryPlan(final_epochs=1))
    states = run(executor, pipeline, preparation)
    final, _ = pipeline.finish(executor, states[-1], preparation)
    unbroken = executor.commit(final.snapshot).tensors
    for number, state in enumerate(states[1:], start=1):
        executor.store.get(state.snapshot).save(tmp_path / f"{number}.safetensors")
    for number in range(1, len(states)):
        fresh = Executor(network, data, Recipe(batch_size=64), 0, torch.device("cpu"))
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
    again = prepare(executor, RULE, FreezeConfig(), True)
    assert dataclasses.replace(again, accuracy_seconds=0, probe_seconds=0) == dataclasses.replace(
        preparation, accuracy_seconds=0, probe_seconds=0
    )


def test_without_a_probe_nothing_is_ranked_and_nothing_trained(executor):
    prepared = prepare(executor, RULE, FreezeConfig(), False)
    assert prepared.ranking == ()
    assert prepared.probe_seconds == 0


def test_pruning_seconds_are_the_sum_of_the_steps_on_either_clock(executor, preparation):
    final = run(executor, ice(), preparation)[-1]
    by_hand = sum(
        r.scoring_seconds + r.removal_seconds + r.measuring_seconds + r.recovery_seconds for r in final.records
    )
    assert final.pruning_seconds("wall", 1.0) == pytest.approx(by_hand)
    assert final.pruning_seconds("work", 1e9) == pytest.approx(sum(r.flops for r in final.records) / 1e9)


def test_with_more_epochs_a_fine_tune_ends_after_the_one_that_brings_the_drop_below_the_threshold(
    executor, preparation
):
    """The paper's Fig. 1, case 4. Oracle: one fine-tune of each length, in the same schedule."""
    original = preparation.original_accuracy
    pipeline = ice(2.0, recovery=RecoveryPlan(epochs=4))
    pruned = run(executor, ice(100.0), preparation)[1]
    record = pipeline.advance(executor, pipeline.begin(executor), preparation).records[0]
    assert record.fine_tuned
    executor.commit(pruned.snapshot)
    frozen = frozen_layers(preparation.ranking, 0.5)
    after = [
        executor.run(
            executor.run(
                pruned.snapshot, Recover(("step", 1), record.learning_rate_max, epochs, "constant", frozen)
            ).snapshot,
            Measure(),
        ).value.accuracy
        for epochs in (1, 2, 3, 4)
    ]
    below = [accuracy for accuracy in after if original - accuracy < 2.0]
    assert record.accuracy == (below or after[-1:])[0]


class TestLooksInsideAFineTune:
    def ran(self, executor, preparation, checks: Checks | None) -> PipelineState:
        plan = RecoveryPlan(epochs=2, checks=checks)
        return run(executor, ice(4.0, recovery=plan), preparation)[-1]

    def test_it_ends_once_it_has_recovered(self, executor, preparation, data):
        """Oracle: the drop over the images looked at, which here are all that decide, is below theta by the margin."""
        looked = self.ran(executor, preparation, Checks(1, len(data.decide), 1.0))
        tuned = [record for record in looked.records if record.fine_tuned]
        early = [record for record in tuned if record.epochs < 2]
        assert early
        assert any(record.epochs % 1 for record in early)
        assert all(record.drop < 4.0 - 1.0 for record in early)

    def test_looks_that_never_come_change_no_bit(self, executor, preparation):
        """Nor those that come at every step and are never content."""
        never, without = (self.ran(executor, preparation, checks) for checks in (Checks(1, 50, 1000.0), None))
        assert never.records[-1].flops > without.records[-1].flops
        assert [record.accuracy for record in never.records] == [record.accuracy for record in without.records]
        tensors = [executor.store.get(state.snapshot).tensors for state in (never, without)]
        assert all(torch.equal(value, tensors[1][key]) for key, value in tensors[0].items())

    def test_going_on_and_beginning_anew_give_the_same_bits(self, executor, preparation, network, data):
        checks = Checks(2, 60, 0.5)
        first = self.ran(executor, preparation, checks)
        fresh = Executor(network, data, Recipe(batch_size=64), 0, torch.device("cpu"))
        again = self.ran(fresh, preparation, checks)
        assert decisions(first) == decisions(again)
        tensors = [own.store.get(first.snapshot).tensors for own in (executor, fresh)]
        assert all(torch.equal(value, tensors[1][key]) for key, value in tensors[0].items())


def test_no_epoch_is_spared_where_the_drop_stays_above_the_threshold(executor, preparation):
    never = RecoveryPlan(epochs=3)
    tiny = dataclasses.replace(hyperparameters(0.0), base_learning_rate=1e-8, learning_rate_reduction=1e-9)
    record = (
        IcePipeline(removal=RULE, hyperparameters=tiny, recovery=never)
        .advance(executor, PipelineState(executor.root), preparation)
        .records[0]
    )
    once = (
        IcePipeline(removal=RULE, hyperparameters=tiny)
        .advance(executor, PipelineState(executor.root), preparation)
        .records[0]
    )
    assert record.flops > 2.5 * once.flops


@pytest.fixture
def small_batches(monkeypatch) -> None:
    """Decision images in seven batches, so that a measurement may end before the last."""
    monkeypatch.setattr("ice_ray.training.evaluate._BATCH_PIXELS", 32 * 8 * 8)


@pytest.mark.parametrize("threshold", [0.0, 3.0, 100.0])
def test_measurements_that_end_early_change_no_decision_and_no_weight(
    executor, preparation, small_batches, monkeypatch, threshold
):
    pipeline = ice(threshold)
    early = run(executor, pipeline, preparation)[-1]
    monkeypatch.setattr("ice_ray.training.evaluate._BATCH_PIXELS", 2**20)
    whole = run(executor, pipeline, preparation)[-1]
    assert early.snapshot == whole.snapshot  # its name tells all that was done to it
    assert [record.accuracy for record in early.records] == [record.accuracy for record in whole.records]
    assert all(record.images_measured == 200 for record in whole.records)
    for record in early.records:
        assert record.fine_tuned or record.images_measured == 200
    if threshold == 0.0:
        assert sum(record.flops for record in early.records) < sum(record.flops for record in whole.records)


class Never(IcePipeline):
    """Fine-tunes nowhere, whatever the drop."""

    def needs_recovery(self, record):
        return False


def test_a_step_that_is_not_recovered_has_its_accuracy_from_all_images(executor, preparation, small_batches):
    early = run(executor, Never(removal=RULE, hyperparameters=hyperparameters(0.0)), preparation)[-1]
    whole = run(executor, ice(100.0), preparation)[-1]
    assert [record.accuracy for record in early.records] == [record.accuracy for record in whole.records]
    assert {record.images_measured for record in early.records} == {200}


def test_with_an_error_allowed_the_last_step_is_still_measured_whole(executor, preparation, small_batches):
    records = run(executor, ice(90.0, decision_error=0.1), preparation)[-1].records
    assert not any(record.fine_tuned for record in records)
    assert min(record.images_measured for record in records) < 200
    assert records[-1].images_measured == 200


def test_freezing_the_stem_leaves_everything_below_the_lowest_trained_layer_as_it_was(executor, preparation, network):
    """Oracle: the layers before it in the network's own order."""
    ranking = tuple(sorted(network.freezable))  # shallow to deep, so that half of them lie below the others
    shallow = dataclasses.replace(preparation, ranking=ranking)
    free = ice(0.0)
    cut = dataclasses.replace(free, freeze_stem=True)
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


def test_the_final_epochs_may_have_a_rate_and_a_schedule_of_their_own(executor, preparation):
    """The oracle is the name of the snapshot, which tells all that was done."""
    plan = RecoveryPlan(final_epochs=2, final_rate=0.02, final_schedule="linear")
    pipeline = ice(100.0, recovery=plan)
    last = run(executor, pipeline, preparation)[-1]
    state, cost = pipeline.finish(executor, last, preparation)
    frozen = frozen_layers(preparation.ranking, 0.5)
    assert state.snapshot == next_id(last.snapshot, Recover(("final",), 0.02, 2, "linear", frozen, final=True))
    assert state.records == last.records
    assert cost.flops > 0


class TestCompensation:
    """On digits: what is repaired before it is measured falls less, is part of PT, and goes on from its snapshots."""

    def ran(self, executor, preparation, kind: str, criterion: str = "l1") -> list[PipelineState]:
        rule = RemovalRule(Amounts(0.5), criterion, 300)
        return run(executor, ice(100.0, rule, compensation=kind), preparation)

    def test_the_better_the_repair_the_smaller_the_drop(self, executor, preparation):
        drops = {
            kind: self.ran(executor, preparation, kind)[-1].records[-1].drop for kind in ("none", "bn", "least-squares")
        }
        drops["residual"] = self.ran(executor, preparation, "least-squares", "residual")[-1].records[-1].drop
        assert drops["none"] > drops["bn"] > drops["least-squares"]
        assert drops["residual"] <= drops["least-squares"] + 2

    def test_it_takes_its_share_of_the_pruning_time_on_both_clocks(self, executor, preparation):
        paper, repaired = (self.ran(executor, preparation, kind)[-1].records for kind in ("none", "least-squares"))
        assert [record.compensation_seconds for record in paper] == [0.0] * 3
        for before, after in zip(paper, repaired, strict=True):
            assert 0 < after.compensation_seconds < after.cost.wall_seconds
            assert after.flops > before.flops

    def test_going_on_from_its_snapshots_gives_the_same_bits(self, executor, preparation, network, data):
        states = self.ran(executor, preparation, "least-squares")
        whole = executor.store.get(states[-1].snapshot).tensors
        fresh = Executor(network, data, Recipe(batch_size=64), 0, torch.device("cpu"))
        fresh.store.put(executor.store.get(states[1].snapshot))
        pipeline = ice(
            100.0,
            RemovalRule(Amounts(0.5), "l1", 300),
            compensation="least-squares",
        )
        state = states[1]
        while not pipeline.is_done(fresh, state):
            state = pipeline.advance(fresh, state, preparation)
        assert state.snapshot == states[-1].snapshot
        assert all(torch.equal(whole[key], value) for key, value in fresh.commit(state.snapshot).tensors.items())


class TestTheFinalRetraining:
    """Its rate and length are hyperparameters: a record of its own, on PT, after the last step."""

    def ran(self, executor, preparation, epochs: float) -> list[PipelineState]:
        point = dataclasses.replace(hyperparameters(100.0), final_epochs=epochs, final_learning_rate=0.02)
        return run(executor, IcePipeline(removal=RULE, hyperparameters=point), preparation)

    def test_it_is_the_last_record_and_costs(self, executor, preparation):
        before, after = self.ran(executor, preparation, 2.0)[-2:]
        last = after.records[-1]
        assert (last.step, last.layers, last.filters_removed) == (4, FINAL_RETRAINING, 0)
        assert after.records[:-1] == before.records
        assert last.epochs == 2
        assert last.learning_rate_max == 0.02
        assert last.drop == preparation.original_accuracy - last.accuracy
        assert last.accuracy > before.accuracy
        assert last.flops > sum(record.flops for record in before.records)
        assert after.pruning_seconds("wall", 1.0) > before.pruning_seconds("wall", 1.0)
        assert PipelineState.from_json(after.to_json()) == after

    def test_without_epochs_there_is_none(self, executor, preparation):
        assert len(self.ran(executor, preparation, 0.0)[-1].records) == 3

    def test_a_part_of_an_epoch_is_that_part(self, executor, preparation, data):
        """In whole batches of 64."""
        last = self.ran(executor, preparation, 0.25)[-1].records[-1]
        batches = -(-0.25 * len(data.train) // 64)
        assert last.epochs == round(batches * 64 / len(data.train), 3)

    def test_going_on_from_before_it_gives_the_same_bits(self, executor, preparation, network, data):
        states = self.ran(executor, preparation, 0.5)
        whole = executor.store.get(states[-1].snapshot).tensors
        fresh = Executor(network, data, Recipe(batch_size=64), 0, torch.device("cpu"))
        fresh.store.put(executor.store.get(states[-2].snapshot))
        point = dataclasses.replace(hyperparameters(100.0), final_epochs=0.5, final_learning_rate=0.02)
        pipeline = IcePipeline(removal=RULE, hyperparameters=point)
        assert not pipeline.is_done(fresh, states[-2])
        after = pipeline.advance(fresh, states[-2], preparation)
        assert pipeline.is_done(fresh, after)
        found = fresh.commit(after.snapshot).tensors
        assert all(torch.equal(whole[key], value) for key, value in found.items())
