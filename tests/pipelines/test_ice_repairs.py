"""ICE-Pruning with repairs that need no training."""

import pytest
import torch
import torch.nn.functional as F
from ice_runs import decisions, ice, paper, run
from torch import nn

from ice_ray.cache.activations import ActivationCache
from ice_ray.engine.actions import Measure, Repair, Score
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.hyperparameters import NEVER, IceHyperparameters
from ice_ray.models import resume
from ice_ray.models.resume import ResumePoint
from ice_ray.pipelines.layerwise import choose_removal, removal_action
from ice_ray.pipelines.records import PipelineState
from ice_ray.training.fine_tune import Recipe


class TestRepair:
    """On digits: what is repaired before it is measured falls less, is part of PT, and goes on from its snapshots."""

    def ran(self, executor, preparation, kind: str, criterion: str = "l1") -> list[PipelineState]:
        pipeline = ice(100.0, repair=kind, criterion=criterion, calibration_images=300)
        return run(executor, pipeline, preparation)

    def test_the_better_the_repair_the_smaller_the_drop(self, executor, preparation):
        drops = {
            kind: self.ran(executor, preparation, kind)[-1].records[-1].drop
            for kind in ("none", "bn", "least-squares", "reconstruction")
        }
        drops["residual"] = self.ran(executor, preparation, "least-squares", "residual")[-1].records[-1].drop
        assert drops["none"] > drops["bn"] > drops["least-squares"]
        assert drops["residual"] <= drops["least-squares"] + 2
        assert drops["reconstruction"] <= drops["least-squares"]  # with AVX-512 both lose nothing

    @pytest.mark.parametrize("kind", ["least-squares", "reconstruction"])
    def test_it_takes_its_share_of_the_pruning_time_on_both_clocks(self, executor, preparation, kind):
        paper, repaired = (self.ran(executor, preparation, each)[-1].records for each in ("none", kind))
        assert [record.repair_seconds for record in paper] == [0.0] * 3
        for before, after in zip(paper, repaired, strict=True):
            assert 0 < after.repair_seconds < after.cost.wall_seconds
            assert after.flops > before.flops

    @pytest.mark.parametrize("kind", ["least-squares", "reconstruction"])
    def test_going_on_from_its_snapshots_gives_the_same_bits(self, executor, preparation, network, data, kind):
        states = self.ran(executor, preparation, kind)
        whole = executor.store.get(states[-1].snapshot).tensors
        fresh = TorchExecutor(network, data, Recipe(batch_size=64), 0, torch.device("cpu"))
        fresh.store.put(executor.store.get(states[1].snapshot))
        pipeline = ice(100.0, repair=kind, calibration_images=300)
        state = states[1]
        while not pipeline.is_done(fresh, state):
            state = pipeline.advance(fresh, state, preparation)
        assert state.snapshot == states[-1].snapshot
        assert all(torch.equal(whole[key], value) for key, value in fresh.commit(state.snapshot).tensors.items())


@pytest.mark.parametrize("kind", ["bn", "least-squares", "reconstruction"])
def test_its_cost_is_that_of_the_action_wherever_it_is_carried_out(executor, network, data, kind):
    """What the scores were charged with is no cost of the repair, whether this process holds it still or not."""
    step = network.steps[1]

    def repair(criterion: str) -> Repair:
        return Repair(2, kind, ((step.units[0].layer, tuple(range(16))),), 200, 2.0, criterion)

    first = Repair(1, "least-squares", ((network.steps[0].units[0].layer, tuple(range(8))),), 200)
    snapshot = executor.run(executor.root, first).snapshot
    content, costs = executor.commit(snapshot), {}
    for criterion in ("l1", "residual"):
        executor.run(snapshot, Score(2, criterion, 200))
        costs[criterion] = executor.run(snapshot, repair(criterion)).cost.flops
        fresh = TorchExecutor(network, data, Recipe(batch_size=64), 0, torch.device("cpu"))
        fresh.store.put(content)
        assert fresh.run(snapshot, repair(criterion)).cost.flops == costs[criterion]
    assert (costs["l1"] > costs["residual"]) == (kind != "bn")


class TestPassesFromTheMiddle:
    """What lies before a step is not run through again; the bits are those of whole passes."""

    @pytest.mark.parametrize("kind", ["bn", "least-squares"])
    @pytest.mark.parametrize("threshold", [1.0, 100.0])  # with fine-tunes in between, and without
    @pytest.mark.parametrize("criterion", ["l1", "residual"])
    def test_they_change_no_bit_and_no_decision(
        self, network, data, preparation, monkeypatch, kind, threshold, criterion
    ):
        ended = []
        for most in (2**28, 0):
            monkeypatch.setattr("ice_ray.engine.calibrator.MOST_BYTES", most)
            executor = TorchExecutor(network, data, Recipe(batch_size=64), 0, torch.device("cpu"))
            pipeline = ice(threshold, repair=kind, criterion=criterion, calibration_images=300)
            ended.append((executor, run(executor, pipeline, preparation)[-1]))
        (executor, state), (other, whole) = ended
        assert state.snapshot == whole.snapshot
        for own, again in zip(decisions(state), decisions(whole), strict=True):
            assert own[:-2] == again[:-2]  # all but the operations
        expected = other.store.get(whole.snapshot).tensors
        assert all(torch.equal(expected[key], value) for key, value in executor.commit(state.snapshot).tensors.items())

    def test_a_layer_of_the_dense_network_runs_for_its_own_step_and_to_move_on_to_the_next(
        self, network, data, preparation
    ):
        """However many steps there are. 300 images are three batches. Once more for the first of them: whether the step
        reads what it did; then for the pruned layer, for what reads it, and to move on or, at last, for the answers.
        """
        runs: dict[str, int] = {}
        executor = TorchExecutor(network, data, Recipe(batch_size=64), 0, torch.device("cpu"))
        dense = executor._dense()
        for trace in network.traces:
            layer = dense.get_submodule(trace.name)
            layer.register_forward_hook(lambda *_, name=trace.name: runs.update({name: runs.get(name, 0) + 1}))
        run(executor, ice(100.0, repair="least-squares", criterion="residual", calibration_images=300), preparation)
        assert [runs[f"layer{block}.0.conv1"] for block in (1, 2, 3)] == [1 + 2 * 3, 1 + 3 * 3, 1 + 3 * 3]

    def test_a_network_that_is_not_the_same_any_more_begins_anew(self, executor, monkeypatch):
        """The same images, another history: nothing that was held is taken for its own."""
        reached: list[bool] = []
        whole = resume.reach
        monkeypatch.setattr(
            "ice_ray.cache.activations.reach", lambda *given: reached.append(len(given) > 3) or whole(*given)
        )
        rule = paper(repair="least-squares", criterion="residual", calibration_images=100)
        first = removal_action(choose_removal(executor, executor.root, 1, rule)[0], 1, rule, is_last=False)
        repaired = executor.run(executor.root, first).snapshot
        executor.commit(repaired)
        assert not any(reached)
        choose_removal(executor, repaired, 2, rule)
        assert reached[2:] == [True, True]
        choose_removal(executor, executor.root, 2, rule)
        assert reached[4:] == [False]  # the dense network stands where it did


class SharedNorm(nn.Module):
    """Blocks with one batch norm for all: what the last of them reads changes what it does in the first."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(Block(self.norm) for _ in range(3))
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Block(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), norm

    def forward(self, x):
        return x + self.norm(self.second(F.relu(self.first(x))))


@pytest.mark.parametrize("kind", ["bn", "least-squares"])
def test_a_norm_that_all_blocks_share_is_as_in_whole_passes(data, monkeypatch, kind):
    torch.manual_seed(0)
    network, found = DenseNetwork(SharedNorm(), data.train.image_shape), []
    for most in (2**28, 0):
        monkeypatch.setattr("ice_ray.engine.calibrator.MOST_BYTES", most)
        executor = TorchExecutor(network, data, Recipe(batch_size=64), 0, torch.device("cpu"))
        snapshot = executor.root
        for step in network.steps:
            removed = tuple((unit.layer, (0, 1, 2)) for unit in step.units)
            snapshot = executor.run(snapshot, Repair(step.number, kind, removed, 100)).snapshot
        found.append(executor.commit(snapshot).tensors)
    assert len(network.steps) == 3
    assert all(torch.equal(found[1][key], value) for key, value in found[0].items())


def test_a_pass_that_fails_leaves_nothing_behind_under_another_s_name():
    first, second = (nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)) for _ in range(2))
    images, standings, place = torch.ones(2, 1, 4, 4), ActivationCache(), ResumePoint("0", ("0",), 32)
    standings.at(place, first, "first", [(images, images)])
    with pytest.raises(RuntimeError):
        standings.at(place, second, "second", [(images[:, [0, 0]], images)])
    (standing,) = standings.at(place, second, "second", [(images, images)])
    assert torch.equal(standing.output, second[0](images))


def test_who_looks_at_no_image_looks_for_no_resume_point(trained, data):
    executor = TorchExecutor(
        DenseNetwork(trained, data.train.image_shape), data, Recipe(batch_size=64), 0, torch.device("cpu")
    )
    choose_removal(executor, executor.root, 1, paper())
    assert "resume_points" not in vars(executor.network)
    choose_removal(executor, executor.root, 1, paper(criterion="residual", calibration_images=100))
    assert "resume_points" in vars(executor.network)


def test_where_theta_is_never_a_few_images_show_each_step_at_no_cost(executor, preparation, monkeypatch):
    """The last step is measured on all, at a cost. Oracle: a run that asks and is never told to fine-tune."""
    monkeypatch.setattr("ice_ray.pipelines.ice._SHOWN_IMAGES", 50)
    options = {"repair": "least-squares", "criterion": "residual", "calibration_images": 300}
    asked = run(executor, ice(100.0, **options), preparation)[-1]
    states = run(executor, ice(point=IceHyperparameters(NEVER), **options), preparation)
    assert asked.snapshot == states[-1].snapshot
    *earlier, last = states[-1].records
    assert [record.images_measured for record in earlier] == [50, 50]
    assert {record.measuring_seconds for record in earlier} == {0.0}
    assert (last.accuracy, last.images_measured) == (asked.records[-1].accuracy, executor.validation_images)
    assert last.measuring_seconds > 0
    for number, record in enumerate(earlier):
        few = executor.run(states[number + 1].snapshot, Measure(None, 50))
        assert record.accuracy == record.accuracy_after_pruning == few.value.accuracy
        assert record.drop == preparation.original_accuracy - record.accuracy
        assert record.flops < asked.records[number].flops
