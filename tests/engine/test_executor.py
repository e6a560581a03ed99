"""Actions on snapshots: same history same bits, nothing half-done left behind."""

import dataclasses

import pytest
import torch

from ice_ray.engine.actions import FineTune, Measure, Prune, Repair, Score, UnprunedShare
from ice_ray.engine.snapshots import Snapshot
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.errors import DivergedError, RunError
from ice_ray.training.config import FineTuneConfig
from ice_ray.training.fine_tune import Recipe

CPU = torch.device("cpu")
PRUNE = Prune((("layer1.0.conv1", (0, 1, 5)),))
FINE_TUNE = FineTune(("step", 1), 0.01, 1, "constant", ("layer2.0.conv1",))


def test_history_names_a_snapshot(executor):
    first = executor.run(executor.root, PRUNE).snapshot
    assert executor.run(executor.root, PRUNE).snapshot == first
    assert executor.run(executor.root, Prune((("layer1.0.conv1", (0, 1, 6)),))).snapshot != first


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"recipe": Recipe(batch_size=32)},
        {"recipe": Recipe(64, FineTuneConfig(distil=False))},
    ],
)
def test_what_decides_the_bits_is_in_the_root_s_name(network, data, executor, change):
    arguments = {"recipe": Recipe(batch_size=64), "seed": 0} | change
    assert TorchExecutor(network, data, device=CPU, **arguments).root != executor.root
    fewer = dataclasses.replace(data, train=type(data.train)(data.train.images[1:], data.train.labels[1:]))
    assert TorchExecutor(network, fewer, Recipe(batch_size=64), 0, CPU).root != executor.root


def test_a_measurement_leaves_the_snapshot_as_it_is(executor):
    outcome = executor.run(executor.root, Measure())
    assert outcome.snapshot == executor.root
    assert 90 < outcome.value.accuracy <= 100
    assert outcome.value.images == executor.validation_images
    assert outcome.cost.flops > 0
    assert executor.run(executor.root, Measure()).value == outcome.value


def test_going_back_to_a_committed_snapshot_gives_the_same_bits(executor):
    pruned = executor.run(executor.root, PRUNE).snapshot
    executor.commit(pruned)
    first = executor.commit(executor.run(pruned, FINE_TUNE).snapshot).tensors
    again = executor.commit(executor.run(pruned, FINE_TUNE).snapshot).tensors
    assert all(torch.equal(first[key], again[key]) for key in first)


def removing(kind: str | None, *removed: tuple[str, tuple[int, ...]]) -> Prune | Repair:
    return Prune(removed) if kind is None else Repair(2, kind, removed, 100, 0.5)


@pytest.mark.parametrize("kind", [None, "bn", "least-squares", "reconstruction"])
def test_a_snapshot_knows_which_of_the_dense_filters_are_left(executor, network, tmp_path, kind):
    """Also where it has been stored and taken up again in between; and what follows has the same bits."""
    again = TorchExecutor(network, executor._data, executor.recipe, 0, CPU)
    first, second = (removing(kind, ("layer2.0.conv1", gone)) for gone in ((0, 3, 31), (0, 1, 2, 27)))
    unbroken = executor.run(executor.run(executor.root, first).snapshot, second).snapshot
    again.commit(again.run(again.root, first).snapshot).save(tmp_path / "s.safetensors")
    executor.commit(unbroken)
    stored = Snapshot.load(tmp_path / "s.safetensors")
    assert stored.kept["layer2.0.conv1"] == (1, 2, *range(4, 31))
    other = TorchExecutor(network, executor._data, executor.recipe, 0, CPU)
    other.store.put(stored)
    resumed = other.commit(other.run(stored.id, second).snapshot)
    own = executor.store.get(unbroken)
    assert own.kept["layer2.0.conv1"] == (*range(5, 29), 30)
    assert resumed.kept == own.kept
    assert executor.filters_left(unbroken) == own.kept
    assert all(torch.equal(resumed.tensors[name], value) for name, value in own.tensors.items())


def test_a_snapshot_that_was_never_committed_is_refused(executor):
    pruned = executor.run(executor.root, PRUNE).snapshot
    executor.run(pruned, FINE_TUNE)
    with pytest.raises(RunError, match="not in the store"):
        executor.run(pruned, Measure())


def test_a_fine_tune_that_diverges_is_said_and_leaves_nothing_behind(executor):
    pruned = executor.run(executor.root, PRUNE).snapshot
    executor.commit(pruned)
    before = executor.run(pruned, Measure()).value
    with pytest.raises(DivergedError, match="1e\\+30"):
        executor.run(pruned, FineTune(("step", 1), 1e30, 1, "constant", ()))
    assert executor.run(pruned, Measure()).value == before


def test_a_snapshot_on_disk_comes_back_whole(executor, tmp_path):
    saved = executor.commit(executor.run(executor.root, PRUNE).snapshot)
    saved.save(tmp_path / "s.safetensors")
    loaded = Snapshot.load(tmp_path / "s.safetensors")
    assert (loaded.id, loaded.kept) == (saved.id, saved.kept)
    assert all(torch.equal(loaded.tensors[key], saved.tensors[key]) for key in saved.tensors)
    whole = (tmp_path / "s.safetensors").read_bytes()
    (tmp_path / "s.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match="cannot be read"):
        Snapshot.load(tmp_path / "s.safetensors")


def test_the_share_that_is_left_by_both_countings(executor, network):
    pruned = executor.run(executor.root, PRUNE).snapshot
    total = sum(parameter.numel() for parameter in network.build(CPU).parameters())
    removed = 3 * (9 * 32 + 2)
    assert executor.run(pruned, UnprunedShare("parameters")).value == pytest.approx(1 - removed / total)
    convs = 9 * (16 * 16 * 2 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64)  # all 3x3 but the first one
    assert executor.run(pruned, UnprunedShare("conv-weights")).value == pytest.approx(1 - 3 * 9 * 32 / convs)


def test_operations_of_a_fine_tune_fall_when_layers_are_frozen(executor):
    free = executor.run(executor.root, FineTune(("step", 1), 0.01, 1, "constant", ())).cost.flops
    frozen = executor.run(
        executor.root, FineTune(("step", 1), 0.01, 1, "constant", executor.network.freezable)
    ).cost.flops
    assert 0.6 * free < frozen < 0.9 * free


def test_scores_are_of_the_step_s_own_units(executor):
    value = executor.run(executor.root, Score(2, "l1")).value
    assert {layer: scores.shape for layer, scores in value.items()} == {"layer2.0.conv1": (32,)}


def test_operations_of_scoring_by_refits_are_those_of_every_reader_s(executor):
    """Layer 2's second convolution reads the first: two passes as far as it, and products of its 288 inputs. They begin
    where the step before did, behind the first convolution.
    """
    multiply_adds = 64 * 9 * 16 * (16 + 16) + 16 * 9 * 32 * (16 + 32)
    cost = executor.run(executor.root, Score(2, "residual", 100)).cost
    assert cost.flops == 100 * (2 * 2 * multiply_adds + 2 * 16 * 288**2)


@pytest.mark.parametrize("trains", [True, False])
def test_warming_up_changes_no_bit(network, data, trains):
    cold, warm = (TorchExecutor(network, data, Recipe(batch_size=64), 0, CPU) for _ in range(2))
    warm.warm_up(trains)
    results = [executor.commit(executor.run(executor.root, FINE_TUNE).snapshot).tensors for executor in (cold, warm)]
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])
