"""What ICE-Pruning trains after its last step."""

import dataclasses

import torch
from ice_runs import hyperparameters, ice, run

from ice_ray.engine.actions import FineTune, next_id
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.pipelines.base import FinalConfig
from ice_ray.pipelines.records import FINAL_RETRAINING, PipelineState
from ice_ray.pruning.freezing import frozen_layers
from ice_ray.training.fine_tune import Recipe


def test_the_final_epochs_may_have_a_rate_and_a_schedule_of_their_own(executor, preparation):
    """The oracle is the name of the snapshot, which tells all that was done."""
    pipeline = ice(100.0, final=FinalConfig(epochs=2, rate=0.02, schedule="linear"))
    last = run(executor, pipeline, preparation)[-1]
    state, cost = pipeline.finish(executor, last, preparation)
    frozen = frozen_layers(preparation.ranking, 0.5)
    assert state.snapshot == next_id(last.snapshot, FineTune(("final",), 0.02, 2, "linear", frozen, final=True))
    assert state.records == last.records
    assert cost.flops > 0


class TestTheFinalRetraining:
    """Its rate and length are hyperparameters: a record of its own, on PT, after the last step."""

    def ran(self, executor, preparation, epochs: float) -> list[PipelineState]:
        point = dataclasses.replace(hyperparameters(100.0), final_epochs=epochs, final_learning_rate=0.02)
        return run(executor, ice(point=point), preparation)

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
        fresh = TorchExecutor(network, data, Recipe(batch_size=64), 0, torch.device("cpu"))
        fresh.store.put(executor.store.get(states[-2].snapshot))
        point = dataclasses.replace(hyperparameters(100.0), final_epochs=0.5, final_learning_rate=0.02)
        pipeline = ice(point=point)
        assert not pipeline.is_done(fresh, states[-2])
        after = pipeline.advance(fresh, states[-2], preparation)
        assert pipeline.is_done(fresh, after)
        found = fresh.commit(after.snapshot).tensors
        assert all(torch.equal(whole[key], value) for key, value in found.items())
