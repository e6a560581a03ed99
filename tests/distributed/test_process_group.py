"""Two real processes over gloo: same bits on every rank after every step, and nearly what one process gives."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gloo import run_processes
from ice_runs import paper
from torch import nn

from ice_ray.data.images import PruningData
from ice_ray.distributed import ProcessGroup, checksum
from ice_ray.engine.actions import FineTune, Repair, Score
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.pipelines.ice import IcePipeline
from ice_ray.pipelines.layerwise import choose_removal
from ice_ray.pruning.criteria import CRITERIA
from ice_ray.pruning.selection import Selection, lowest
from ice_ray.training import evaluate
from ice_ray.training.config import StepFineTuneConfig
from ice_ray.training.fine_tune import Recipe

HYPERPARAMETERS = IceHyperparameters(4.0, 0.5, 0.02, 5e-3, 0.15, 50)
CONFIG = paper(criterion="taylor", calibration_images=200, fine_tune=StepFineTuneConfig(epochs=2))


def replay(executor: TorchExecutor) -> tuple[list[int], list[float], list[int], list[int]]:
    """Checksums, accuracies, epochs, images measured of every step of a run, of up to two epochs a fine-tune."""
    pipeline = IcePipeline(config=CONFIG, hyperparameters=HYPERPARAMETERS)
    preparation = pipeline.prepare(executor, True)
    state, sums = pipeline.begin(executor), []
    while not pipeline.is_done(executor, state):
        state = pipeline.advance(executor, state, preparation)
        sums.append(int(checksum(executor.module(state.snapshot))))
    return (
        sums,
        [record.accuracy for record in state.records],
        [record.epochs for record in state.records],
        [record.images_measured for record in state.records],
    )


def scores(executor: TorchExecutor) -> dict[str, torch.Tensor]:
    """What every criterion says of the second step's filters."""
    return {name: executor.run(executor.root, Score(2, name, 200)).value["layer2.0.conv1"] for name in CRITERIA}


def repaired(executor: TorchExecutor, kind: str = "least-squares") -> tuple[list[int], dict[str, float]]:
    """Checksums of every step of a run that is repaired and never trained, and the errors that its repairs left."""
    snapshot, sums, errors = executor.root, [], {}
    for step in executor.network.steps:
        removed, _ = choose_removal(executor, snapshot, step.number, CONFIG)
        together = 2 if kind == "reconstruction" and step is executor.network.steps[-1] else 0
        outcome = executor.run(snapshot, Repair(step.number, kind, removed, 200, epochs=4, together=together))
        snapshot = outcome.snapshot
        sums.append(int(checksum(executor.module(snapshot))))
        found = outcome.value.refitted if kind == "least-squares" else outcome.value.reconstructed
        errors |= {layer: after for layer, (_, after) in (found | outcome.value.together).items()}
    return sums, errors


def mirroring(network: DenseNetwork, data: PruningData, group: ProcessGroup | None = None) -> TorchExecutor:
    """Of a network whose residual stream is pruned, too, where training mirrors images."""
    coupled = DenseNetwork(network.build(torch.device("cpu")), network.image_shape, Selection(coupled=True))
    mirrored = replace(data, preprocessing=replace(data.preprocessing, flip=True))
    return TorchExecutor(coupled, mirrored, Recipe(batch_size=64), 0, torch.device("cpu"), group)


class WithSpare(nn.Module):
    """A network with parameters that its outputs do not depend on, which DistributedDataParallel would wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.spare = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 10, 3), nn.Linear(2, 2)

    def forward(self, x):
        return self.second(self.first(x).relu()).mean((2, 3))


class WithSecondHead(WithSpare):
    """Whose spare part answers in training; memory is read in order before it."""

    def forward(self, x):
        maps = self.first(x).relu()
        logits = self.second(maps).mean((2, 3))
        return {"aux": self.spare(maps.view(maps.size(0), -1)[:, :2]), "logits": logits} if self.training else logits


def train_with_a_spare_part(data: PruningData, kind: type[nn.Module]) -> None:
    """One fine-tune over the processes."""
    network = DenseNetwork(kind(), data.train.image_shape)
    own = TorchExecutor(network, data, Recipe(batch_size=64), 0, torch.device("cpu"), ProcessGroup())
    own.run(own.root, FineTune(("step", 1), 0.01, 1, "constant", ()))


def worker(rank: int, network: DenseNetwork, data: PruningData, folder: Path) -> None:
    evaluate._BATCH_PIXELS = 32 * 8 * 8  # several batches of the 200 images: a measurement may end before the last
    executor = TorchExecutor(network, data, Recipe(batch_size=64), 0, torch.device("cpu"), ProcessGroup())
    for kind in (WithSpare, WithSecondHead):
        train_with_a_spare_part(data, kind)
    mended = repaired(executor), repaired(mirroring(network, data, ProcessGroup()), "reconstruction")
    torch.save((scores(executor), *mended, *replay(executor)), folder / f"rank{rank}.pt")


@pytest.mark.slow
def test_ranks_hold_the_same_bits_after_every_step(network, data, tmp_path):
    run_processes(worker, 2, network, data, tmp_path)
    (scored, mended, trained, *ran), (other_scored, other_mended, other_trained, *other_ran) = (
        torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)
    )
    assert ran == other_ran
    assert mended == other_mended
    assert trained == other_trained
    sums, accuracies, epochs, measured = ran
    assert len(sums) == len(network.steps)
    assert min(measured) < 200  # a measurement ended early, on both ranks alike
    assert {1, 2} <= set(epochs)  # some fine-tunes ended early, others did not
    executor = TorchExecutor(network, data, Recipe(batch_size=64), 0, torch.device("cpu"))
    for name, expected in scores(executor).items():
        assert torch.equal(scored[name], other_scored[name])
        torch.testing.assert_close(scored[name], expected, msg=name)
        assert lowest(scored[name], 16) == lowest(expected, 16)
    assert mended[1] == pytest.approx(repaired(executor)[1], rel=0.2)  # norms see half batches each
    # The same batches, but for rounding, which training makes more of.
    assert trained[1] == pytest.approx(repaired(mirroring(network, data), "reconstruction")[1], rel=0.15)
    _, alone, _, _ = replay(executor)
    # Two processes differ from one by batch-norm statistics of half batches: 200 images, so a few of them.
    assert accuracies[-1] == pytest.approx(alone[-1], abs=5)


def test_a_checksum_sees_any_bit_of_weights_and_buffers(network):
    model = network.build(torch.device("cpu"))
    seen = {int(checksum(model))}
    with torch.no_grad():
        weight = model.get_parameter("conv1.weight")
        weight[0, 0, 0, 0] += 1e-3
        seen.add(int(checksum(model)))
        weight[0, 0, 0] = weight[0, 0, 0].flip(0)
        seen.add(int(checksum(model)))
        model.get_buffer("bn1.running_mean")[0] += 1e-3
        seen.add(int(checksum(model)))
        model.get_buffer("bn1.num_batches_tracked").add_(1)
        seen.add(int(checksum(model)))
    assert len(seen) == 5
