"""Three real processes over gloo: what is fixed keeps its bits, what is one tensor stays one, on every rank."""

from pathlib import Path

import pytest
import torch
from gloo import run_processes
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from ice_ray.data.images import PruningData
from ice_ray.distributed import ProcessGroup
from ice_ray.engine.actions import FineTune, Prune
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.training.fine_tune import Recipe


class Held(nn.Module):
    """A stem that is fixed, a norm of fixed statistics, two heads of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3), FrozenBatchNorm2d(8)
        self.first, self.second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.head, self.other = nn.Linear(8, 10), nn.Linear(8, 10)
        self.other.weight = self.head.weight
        self.stem.requires_grad_(False)
        self.norm.running_var.uniform_(0.1, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(self.norm(self.stem(x)).relu()).relu()).mean((2, 3))
        return self.head(x) + self.other(x)


def worker(rank: int, model: nn.Module, data: PruningData, folder: Path) -> None:
    network = DenseNetwork(model, data.train.image_shape)
    executor = TorchExecutor(network, data, Recipe(batch_size=66), 0, torch.device("cpu"), ProcessGroup())
    executor.warm_up()
    pruned = executor.run(executor.root, Prune((("first", (1, 4)),))).snapshot
    tuned = executor.run(pruned, FineTune(("step", 1), 0.01, 1, "constant", ())).snapshot
    own = executor.module(tuned)
    assert own.other.weight is own.head.weight
    torch.save(executor.commit(tuned).tensors, folder / f"rank{rank}.pt")


@pytest.mark.slow
def test_ranks_leave_what_is_held(data, tmp_path):
    torch.manual_seed(0)
    model = Held().eval()
    run_processes(worker, 3, model, data, tmp_path)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(3)]
    before = model.state_dict()
    for found in ranks:
        assert all(torch.equal(tensor, ranks[0][name]) for name, tensor in found.items())
        held = [name for name in before if name.startswith(("stem.", "norm."))]
        assert all(torch.equal(found[name], before[name]) for name in held)
        assert not torch.equal(found["head.weight"], before["head.weight"])
        assert torch.equal(found["head.weight"], found["other.weight"])
