"""Fine-tunes and measurements of ICE-Pruning that end once their question is answered."""

import dataclasses

import pytest
import torch
from ice_runs import decisions, hyperparameters, ice, paper, run

from ice_ray.engine.actions import FineTune, Measure
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.pipelines.ice import EarlyStoppingConfig, IcePipeline
from ice_ray.pipelines.records import PipelineState
from ice_ray.pruning.freezing import frozen_layers
from ice_ray.training.config import StepFineTuneConfig
from ice_ray.training.fine_tune import Recipe


def test_with_more_epochs_a_fine_tune_ends_after_the_one_that_brings_the_drop_below_the_threshold(
    executor, preparation
):
    """The paper's Fig. 1, case 4. Oracle: one fine-tune of each length, in the same schedule."""
    original = preparation.original_accuracy
    pipeline = ice(2.0, fine_tune=StepFineTuneConfig(epochs=4))
    pruned = run(executor, ice(100.0), preparation)[1]
    record = pipeline.advance(executor, pipeline.begin(executor), preparation).records[0]
    assert record.fine_tuned
    executor.commit(pruned.snapshot)
    frozen = frozen_layers(preparation.ranking, 0.5)
    after = [
        executor.run(
            executor.run(
                pruned.snapshot, FineTune(("step", 1), record.learning_rate_max, epochs, "constant", frozen)
            ).snapshot,
            Measure(),
        ).value.accuracy
        for epochs in (1, 2, 3, 4)
    ]
    below = [accuracy for accuracy in after if original - accuracy < 2.0]
    assert record.accuracy == (below or after[-1:])[0]


class TestLooksInsideAFineTune:
    def ran(self, executor, preparation, stopping: EarlyStoppingConfig) -> PipelineState:
        pipeline = ice(4.0, fine_tune=StepFineTuneConfig(epochs=2), early_stopping=stopping)
        return run(executor, pipeline, preparation)[-1]

    def test_it_ends_once_it_has_recovered(self, executor, preparation, data):
        """Oracle: the drop over the images looked at, which here are all that decide, is below theta by the margin, or
        at the end of an epoch below theta.
        """
        looked = self.ran(executor, preparation, EarlyStoppingConfig(1, len(data.validation), 1.0))
        tuned = [record for record in looked.records if record.fine_tuned]
        early = [record for record in tuned if record.epochs < 2]
        assert early
        assert any(record.epochs % 1 for record in early)
        assert all(record.drop < (4.0 - 1.0 if record.epochs % 1 else 4.0) for record in early)

    def test_looks_that_never_come_change_no_bit(self, executor, preparation):
        """Nor those that come at every step and are never content."""
        never, without = (
            self.ran(executor, preparation, EarlyStoppingConfig(every, 50, 1000.0)) for every in (1, None)
        )
        assert never.records[-1].flops > without.records[-1].flops
        assert [record.accuracy for record in never.records] == [record.accuracy for record in without.records]
        tensors = [executor.store.get(state.snapshot).tensors for state in (never, without)]
        assert all(torch.equal(value, tensors[1][key]) for key, value in tensors[0].items())

    def test_going_on_and_beginning_anew_give_the_same_bits(self, executor, preparation, network, data):
        early_stopping = EarlyStoppingConfig(2, 60, 0.5)
        first = self.ran(executor, preparation, early_stopping)
        fresh = TorchExecutor(network, data, Recipe(batch_size=64), 0, torch.device("cpu"))
        again = self.ran(fresh, preparation, early_stopping)
        assert decisions(first) == decisions(again)
        tensors = [own.store.get(first.snapshot).tensors for own in (executor, fresh)]
        assert all(torch.equal(value, tensors[1][key]) for key, value in tensors[0].items())


def test_no_epoch_is_spared_where_the_drop_stays_above_the_threshold(executor, preparation):
    tiny = dataclasses.replace(hyperparameters(0.0), base_learning_rate=1e-8, learning_rate_reduction=1e-9)
    record, once = (
        ice(point=tiny, fine_tune=StepFineTuneConfig(epochs=epochs))
        .advance(executor, PipelineState(executor.root), preparation)
        .records[0]
        for epochs in (3, 1)
    )
    assert record.flops > 2.5 * once.flops


@pytest.fixture
def small_batches(monkeypatch) -> None:
    """Validation images in seven batches, so that a measurement may end before the last."""
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

    def needs_fine_tuning(self, record, threshold):
        return False


def test_a_step_that_is_not_recovered_has_its_accuracy_from_all_images(executor, preparation, small_batches):
    early = run(executor, Never(config=paper(), hyperparameters=hyperparameters(0.0)), preparation)[-1]
    whole = run(executor, ice(100.0), preparation)[-1]
    assert [record.accuracy for record in early.records] == [record.accuracy for record in whole.records]
    assert {record.images_measured for record in early.records} == {200}


def test_with_an_error_allowed_the_last_step_is_still_measured_whole(executor, preparation, small_batches):
    records = run(executor, ice(90.0, decision_error=0.1), preparation)[-1].records
    assert not any(record.fine_tuned for record in records)
    assert min(record.images_measured for record in records) < 200
    assert records[-1].images_measured == 200
