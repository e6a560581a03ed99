"""What pruned forms come to, counted: against networks that are built."""

import pytest
import torch
from torch import nn

from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.target import macs
from ice_ray.models.cifar import CifarMobileNetV2, CifarResNet
from ice_ray.pruning.footprint import Footprint
from ice_ray.pruning.selection import Selection
from ice_ray.randomness import generator

CPU = torch.device("cpu")


class Gated(nn.Module):
    """Grouped and depthwise convolutions, a squeeze-and-excitation, a group norm, a flattened reader."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.GroupNorm(4, 16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.project = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8 * 36, 5)

    def forward(self, images):
        out = self.depthwise(self.grouped(torch.relu(self.norm(self.stem(images)))).relu())
        out = out * torch.sigmoid(self.excite(self.squeeze(out.mean((2, 3), keepdim=True)).relu()))
        return self.head(self.project(out).relu().flatten(1))


@pytest.mark.parametrize("build", [Gated, lambda: CifarResNet(20), CifarMobileNetV2], ids=["gated", "resnet", "mobile"])
@pytest.mark.parametrize("drawn", range(3))
def test_counts_are_those_of_the_network_that_is_built(build, drawn):
    size = (3, 6, 6) if build is Gated else (3, 32, 32)
    network, _ = DenseNetwork.verified(build(), size, Selection(include=("*",)))
    footprint = Footprint(network.build(CPU), size, network.traces, network.units)
    dense, kept = network.build(CPU), {}
    for number, unit in enumerate(network.units):
        runs = unit.filters // unit.groups
        kept[unit.layer] = unit.groups * int(torch.randint(1, runs + 1, (), generator=generator(drawn, number)))
    pruned = network.build_pruned(kept, CPU)
    assert footprint.share("macs", kept) == pytest.approx(macs(network, pruned) / macs(network, dense), rel=1e-9)
    assert footprint.share("params", kept) == pytest.approx(network.unpruned_share(pruned, "parameters"), rel=1e-9)
    for unit in network.units:
        along = footprint.along("macs", kept, unit)
        assert len(along) == unit.filters + 1
        assert along[kept[unit.layer]] == pytest.approx(footprint.share("macs", kept))
    assert footprint.share("macs", {}) == 1.0
    for trace in network.traces:
        shape = pruned.get_parameter(f"{trace.name}.weight").shape
        assert footprint.channels(trace.name, kept) == tuple(shape[:2])
