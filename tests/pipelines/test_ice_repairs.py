"""ICE-Pruning with repairs that need no training."""

import torch
from ice_runs import ice, run

from ice_ray.engine.executor import Executor
from ice_ray.pipelines.records import PipelineState
from ice_ray.pipelines.removal_choice import RemovalRule
from ice_ray.pruning.amounts import Amounts
from ice_ray.training.fine_tune import Recipe


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
