"""What goes with a coupled set of channels, counted: against networks that are built."""

import pytest
import torch
from torch import nn

from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.target import macs
from ice_ray.models.cifar import CifarResNet
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


def test_with_zero_padded_shortcuts_no_more_is_left_than_is_said():
    """A filter of the last stage takes along those of the stages before, or none: which ones go is not known yet."""
    network, _ = DenseNetwork.verified(CifarResNet(8), (3, 16, 16), Selection(coupled=True))
    (unit,) = (unit for unit in network.units if unit.coupled)
    footprint = Footprint(network.build(CPU), (3, 16, 16), network.traces, network.units)
    dense = network.build(CPU)
    said = footprint.share("macs", {unit.layer: unit.filters - 8})
    last_stage_alone, all_stages = tuple(range(8, 64)), tuple(i for i in range(64) if not 28 <= i < 36)
    left = [
        macs(network, network.build_pruned({unit.layer: kept}, CPU)) / macs(network, dense)
        for kept in (last_stage_alone, all_stages)
    ]
    assert left[1] < left[0] == pytest.approx(said, rel=1e-9)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_counts_of_coupled_sets_are_those_of_the_network_that_is_built(share):
    network, _ = DenseNetwork.verified(Residual(), (3, 6, 6), Selection(include=("*",), coupled=True))
    assert any(unit.coupled for unit in network.units)
    footprint = Footprint(network.build(CPU), (3, 6, 6), network.traces, network.units)
    kept = {unit.layer: max(1, round(share * unit.filters)) for unit in network.units}
    dense, pruned = network.build(CPU), network.build_pruned(kept, CPU)
    assert footprint.share("macs", kept) == pytest.approx(macs(network, pruned) / macs(network, dense), rel=1e-9)
    assert footprint.share("params", kept) == pytest.approx(network.unpruned_share(pruned, "parameters"), rel=1e-9)
