"""What may be pruned, in which steps, and how many filters a ratio takes."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ice_ray.engine.network import DenseNetwork
from ice_ray.errors import UserError
from ice_ray.models.registry import ModelSpec
from ice_ray.pruning.freezing import hold_fixed
from ice_ray.pruning.selection import Selection


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
    """Units of one block are one step; what lies between blocks is left alone unless asked for."""
    assert [step.name for step in DenseNetwork(Mixed(), (3, 8, 8)).steps] == ["block.conv1 + block.conv2"]
    asked = DenseNetwork(Mixed(), (3, 8, 8), Selection(include=("*",))).steps
    assert [step.name for step in asked] == ["stem", "block.conv1 + block.conv2", "tail.0", "tail.3"]
    assert asked[2].units[0].consumers == ("tail.3",)
    assert asked[3].units[0].consumers == ("head",)


def test_every_other_layer_is_refused_with_its_reason():
    refused = DenseNetwork(Mixed(), (3, 8, 8)).refused
    assert "read outside its block" in refused["stem"]
    assert refused["block.conv3"] == "a sum couples its filters to those of block.shortcut"
    assert "concatenation" in refused["left"]
    assert "depthwise" in refused["tail.1"]
    assert "the model's outputs" in refused["head"]


def test_include_and_exclude_are_patterns_and_what_matches_nothing_is_refused_by_name():
    def names(**patterns):
        return [step.name for step in DenseNetwork(Mixed(), (3, 8, 8), Selection(**patterns)).steps]

    assert names(exclude=("*.conv2",)) == ["block.conv1"]
    assert names(include=("tail.*", "block.conv2"), exclude=("tail.3",)) == ["block.conv2", "tail.0"]
    with pytest.raises(UserError, match=r"'left' matches no prunable layer: left cannot be pruned, a concatenation"):
        names(include=("left",))
    with pytest.raises(
        UserError,
        match=r"prune.exclude 'blok\*' matches no prunable layer \(nearest: block.conv2, block.conv1; valid: ",
    ):
        names(exclude=("blok*",))
    with pytest.raises(UserError, match="no layer whose filters may be pruned"):
        names(exclude=("block.*",))


def test_head_and_shortcut_are_not_freezable_though_they_read_prunable_filters():
    inside = ("block.conv1", "block.conv2", "block.conv3")
    assert DenseNetwork(Mixed(), (3, 8, 8)).freezable == inside
    asked = DenseNetwork(Mixed(), (3, 8, 8), Selection(include=("*",)))
    assert asked.freezable == (*inside, "tail.0", "tail.3")


def chain(between: nn.Module) -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), between, nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.LazyLinear(2))
    model(torch.zeros(2, 3, 8, 8))
    return model


@pytest.mark.parametrize(
    ("between", "groups"),
    [(nn.Conv2d(8, 8, 3, groups=4), 4), (nn.GroupNorm(2, 8), 2), (nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 1)), 1)],
)
def test_filters_that_a_grouped_layer_reads_go_alike_from_every_group(between, groups):
    network = DenseNetwork(chain(between), (3, 8, 8))
    assert network.steps[0].name == "0"
    assert network.steps[0].units[0].groups == groups


def test_filters_that_a_grouped_layer_leaves_no_choice_are_refused_by_name():
    doubling = nn.Sequential(nn.Conv2d(8, 16, 3, groups=8), nn.Conv2d(16, 8, 1))
    assert "leaves none of its 8 filters free" in DenseNetwork(chain(doubling), (3, 8, 8)).refused["0"]


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x):
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class GatedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand, self.project, self.gate = nn.Conv2d(4, 12, 1), nn.Conv2d(12, 4, 1), SqueezeExcitation(12)

    def forward(self, x):
        return x + self.project(self.gate(self.expand(x).relu()))


def test_a_gate_goes_with_the_block_it_gates():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), GatedBlock(), GatedBlock(), nn.Conv2d(4, 2, 8), nn.Flatten())
    network = DenseNetwork(model, (3, 8, 8))
    assert [step.name for step in network.steps] == ["1.expand + 1.gate.fc1", "2.expand + 2.gate.fc1"]
    assert network.refused["1.gate.fc2"] == "it goes with 1.expand, which it gates"
    assert set(network.steps[0].units[0].consumers) == {"1.project", "1.gate.fc1"}


def test_a_model_without_anything_to_prune_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(UserError, match="no layer whose filters may be pruned"):
        DenseNetwork(model, (3, 8, 8))


class Residual(nn.Module):
    """A block of two convolutions with any operation between them."""

    def __init__(self, between, read: int = 8) -> None:
        super().__init__()
        self.first, self.second, self.between = nn.Conv2d(8, 8, 1), nn.Conv2d(read, 8, 1), between

    def forward(self, x):
        return x + self.second(self.between(self.first(x).relu()))


def shuffled(x):
    count, channels, height, width = x.shape
    return x.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize(
    ("between", "read"),
    [
        (shuffled, 8),
        (lambda x: F.glu(x, 1), 4),
        (lambda x: F.pad(x, (0, 0, 0, 0, 2, 2)), 12),
        (lambda x: x.repeat(1, 2, 1, 1), 16),
        (lambda x: x * torch.arange(1.0, 9.0).view(1, 8, 1, 1), 8),
    ],
    ids=["shuffle", "gated linear unit", "padded channels", "repeated channels", "a constant of the width"],
)
def test_removal_that_goes_wrong_is_found_by_trying_and_refused_by_name(between, read):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Residual(between, read), Residual(lambda x: x), nn.Conv2d(8, 2, 8))
    network, selection = DenseNetwork.verified(model.append(nn.Flatten()), (3, 8, 8))
    assert [step.name for step in network.steps] == ["2.first"]
    assert "cannot be followed" in network.refused["1.first"] or "breaks the network" in network.refused["1.first"]
    assert [layer for layer, _ in selection.faulty] == ["1.first"]
    with pytest.raises(UserError, match=r"1\.first cannot be pruned"):
        DenseNetwork(model, (3, 8, 8), dataclasses.replace(selection, include=("1.first",)))


def test_removal_that_goes_well_leaves_the_selection_as_it_is():
    network, selection = DenseNetwork.verified(chain(nn.GroupNorm(2, 8)), (3, 8, 8))
    assert (len(network.steps), selection) == (2, Selection())
    assert DenseNetwork.verified(Mixed(), (3, 8, 8))[1] == Selection()


class ExcitedResidual(nn.Module):
    """Squeeze and excitation behind the convolution that the sum couples."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.gate = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1), SqueezeExcitation(8)

    def forward(self, x):
        return x + self.gate(self.conv2(self.conv1(x).relu()))


def test_a_gate_behind_a_coupled_convolution_is_of_its_block_too():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), ExcitedResidual(), ExcitedResidual(), nn.Conv2d(8, 2, 8), nn.Flatten())
    names = [step.name for step in DenseNetwork(model, (3, 8, 8)).steps]
    assert names == ["1.conv1 + 1.gate.fc1", "2.conv1 + 2.gate.fc1"]


class Wrapped(nn.Module):
    def __init__(self, backbone: nn.Module, outputs: int) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(outputs, 2)

    def forward(self, x):
        return self.head(self.backbone(x).relu())


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 if number == 0 else 6, 6, 3, padding=1) for number in range(6))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).relu()
        return x.mean((2, 3))


def test_a_wrapped_network_has_the_steps_that_it_has_alone():
    resnet = ModelSpec("cifar-resnet20", 10).build()
    alone = [step.name for step in DenseNetwork(resnet, (3, 8, 8)).steps]
    wrapped = [step.name for step in DenseNetwork(Wrapped(resnet, 10), (3, 8, 8)).steps]
    assert wrapped == [f"backbone.{name}" for name in alone]


def test_the_links_of_a_chain_are_steps_of_their_own_wrapped_or_not():
    assert len(DenseNetwork(Chain(), (3, 8, 8)).steps) == 5
    assert [len(step.units) for step in DenseNetwork(Wrapped(Chain(), 6), (3, 8, 8)).steps] == [1] * 5


def test_parameters_that_the_outputs_do_not_depend_on_do_not_train():
    model = Chain()
    model.spare = nn.Linear(3, 3)
    network = DenseNetwork(model, (3, 8, 8))
    assert network.unused == ("spare.weight", "spare.bias")
    own = network.build(torch.device("cpu"))
    hold_fixed(own, (), network.norms, network.unused)
    assert [name for name, each in own.named_parameters() if not each.requires_grad] == list(network.unused)


class Gained(nn.Conv2d):
    """Its weights are multiplied by a gain for each filter, as in networks without norms; or by one for them all."""

    def __init__(self, *sizes: int, each: bool) -> None:
        super().__init__(*sizes, padding=1)
        self.gain = nn.Parameter(torch.ones(sizes[1], 1, 1, 1) if each else torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight * self.gain, self.bias)


@pytest.mark.parametrize("each", [True, False])
def test_a_layer_with_a_tensor_that_nothing_would_cut_is_refused_by_name_at_once(each):
    model = nn.Sequential(Gained(3, 8, 3, each=each), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    network, selection = DenseNetwork.verified(nn.Sequential(model, nn.Flatten()), (3, 8, 8))
    assert [unit.layer for unit in network.units] == (["0.2"] if each else ["0.0", "0.2"])
    assert network.refused.get("0.0", "").startswith("0.0 has gain beside its weight") is each
    assert not selection.faulty
