"""What goes with a coupled set of channels, counted: against networks that are built."""

import pytest
import torch
from torch import nn

from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.target import macs
from ice_ray.pruning.footprint import Footprint
from ice_ray.pruning.selection import Selection

CPU = torch.device("cpu")


class Residual(nn.Module):
    """A stream that a stem and two blocks write and that blocks and head read, and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.down = nn.ModuleList(nn.Conv2d(16, 8, 1) for _ in range(2))
        self.up = nn.ModuleList(nn.Conv2d(8, 16, 3, padding=1) for _ in range(2))
        self.left, self.right = nn.Conv2d(16, 6, 1), nn.Conv2d(16, 10, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, images):
        out = self.norm(self.stem(images))
        for down, up in zip(self.down, self.up, strict=True):
            out = out + up(down(out).relu())
        return self.head(torch.cat([self.left(out), self.right(out)], 1).relu().mean((2, 3)))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_counts_of_coupled_sets_are_those_of_the_network_that_is_built(share):
    network, _ = DenseNetwork.verified(Residual(), (3, 6, 6), Selection(include=("*",), coupled=True))
    assert any(unit.coupled for unit in network.units)
    footprint = Footprint(network.build(CPU), (3, 6, 6), network.traces, network.units)
    kept = {unit.layer: max(1, round(share * unit.filters)) for unit in network.units}
    dense, pruned = network.build(CPU), network.build_pruned(kept, CPU)
    assert footprint.share("macs", kept) == pytest.approx(macs(network, pruned) / macs(network, dense), rel=1e-9)
    assert footprint.share("params", kept) == pytest.approx(network.unpruned_share(pruned, "parameters"), rel=1e-9)
