"""What may be pruned, in which steps, and how many filters a ratio takes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ice_ray.engine.network import DenseNetwork
from ice_ray.errors import UserError
from ice_ray.models.registry import ModelSpec
from ice_ray.pruning.units import check_ratio, removed_count


@pytest.mark.parametrize(("depth", "steps"), [(8, 3), (20, 9), (56, 27)])
def test_a_cifar_resnet_gives_the_first_convolution_of_each_block(depth, steps):
    network = DenseNetwork(ModelSpec(f"cifar-resnet{depth}", 10).build(), (3, 32, 32))
    assert len(network.steps) == steps
    assert [step.number for step in network.steps] == list(range(1, steps + 1))
    assert all(step.name.endswith(".conv1") and len(step.units) == 1 for step in network.steps)
    assert network.steps[0].units[0].consumers == ("layer1.0.conv2",)
    assert [step.units[0].filters for step in network.steps] == [16] * (steps // 3) + [32] * (steps // 3) + [64] * (
        steps // 3
    )


def test_the_paper_s_resnet_152_has_its_parameters_and_steps():
    model = ModelSpec("cifar-resnet152", 10).build()
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_408_474
    assert len(DenseNetwork(model, (3, 32, 32)).steps) == 75


def test_stem_and_head_are_not_freezable():
    network = DenseNetwork(ModelSpec("cifar-resnet20", 10).build(), (3, 32, 32))
    assert len(network.freezable) == 18
    assert "conv1" not in network.freezable
    assert network.norms["layer1.0.conv2"] == "layer1.0.bn2"


class Bottleneck(nn.Module):
    """Two prunable convolutions in one block, a projection shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv3 = nn.Conv2d(4, 16, 1)
        self.shortcut = nn.Conv2d(8, 16, 1)

    def forward(self, x):
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return self.conv3(out) + self.shortcut(x)


class Mixed(nn.Module):
    """A stem, a bottleneck, a concatenation, a depthwise convolution and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block = Bottleneck()
        self.left, self.right = nn.Conv2d(16, 6, 1), nn.Conv2d(16, 6, 1)
        self.tail = nn.Sequential(nn.Conv2d(12, 10, 1), nn.Conv2d(10, 10, 3, groups=10), nn.ReLU(), nn.Conv2d(10, 5, 1))
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        out = self.block(self.stem(x).relu())
        out = self.tail(torch.cat([self.left(out), self.right(out)], dim=1))
        return self.head(out.mean((2, 3)))


def test_the_general_rule():
    """Units of one block are one step; sums and concatenations couple; a depthwise convolution follows its input."""
    steps = DenseNetwork(Mixed(), (3, 8, 8)).steps
    assert [step.name for step in steps] == ["stem", "block.conv1 + block.conv2", "tail.0", "tail.3"]
    assert steps[2].units[0].consumers == ("tail.3",)
    assert steps[3].units[0].consumers == ("head",)


def test_head_and_shortcut_are_not_freezable_though_they_read_prunable_filters():
    assert DenseNetwork(Mixed(), (3, 8, 8)).freezable == (
        "block.conv1",
        "block.conv2",
        "block.conv3",
        "tail.0",
        "tail.3",
    )


@pytest.mark.parametrize(
    "between",
    [nn.Conv2d(8, 8, 3, groups=4), nn.GroupNorm(4, 8), nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 1, groups=2))],
)
def test_filters_that_a_grouped_layer_reads_are_not_prunable(between):
    """Groups must stay equal in size, so not any filter can go."""
    model = nn.Sequential(nn.Conv2d(3, 8, 1), between, nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.LazyLinear(2))
    model(torch.zeros(2, 3, 8, 8))
    assert "0" not in [step.name for step in DenseNetwork(model, (3, 8, 8)).steps]


def test_a_model_without_anything_to_prune_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(UserError, match="no convolution whose filters may be pruned"):
        DenseNetwork(model, (3, 8, 8))


@pytest.mark.parametrize(
    ("ratio", "filters", "removed"),
    [(0.55, 100, 55), (0.6, 16, 10), (0.6, 32, 20), (0.6, 64, 39), (0.5, 7, 4), (0.07, 100, 7), (1e-9, 5, 1)],
)
def test_the_number_removed_is_an_exact_ceiling(ratio, filters, removed):
    assert removed_count(ratio, filters) == removed


@given(st.integers(1, 99), st.integers(1, 4096))
def test_whole_percentages_agree_with_whole_number_arithmetic(percent, filters):
    assert removed_count(percent / 100, filters) == -(-percent * filters // 100)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, float("nan"), float("inf")])
def test_a_ratio_that_is_none_is_refused(network, ratio):
    with pytest.raises(UserError, match="inside"):
        check_ratio(ratio, network.steps)


def test_a_ratio_that_would_empty_a_layer_is_refused_with_the_most_that_can_be(network):
    with pytest.raises(UserError, match=r"would empty layer layer1.0.conv1 \(16 filters\); take at most 0.937"):
        check_ratio(0.94, network.steps)
    check_ratio(0.937, network.steps)
