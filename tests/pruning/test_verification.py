"""Whether removal is tried where its faults show: behind norms over channels, in networks that are hardly trained."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from ice_ray.engine.network import DenseNetwork
from ice_ray.errors import UserError
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.coupling import dependency_graph, removal_group
from ice_ray.pruning.removal import remove_filters

SHAPE = (3, 8, 8)
CPU = torch.device("cpu")


class Head(nn.Module):
    """Takes any feature maps; two classes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))


class Block(nn.Module):
    """Two convolutions, anything between them, a shortcut around them."""

    def __init__(self, between, read: int = 8, norm=nn.BatchNorm2d, reader=nn.Conv2d) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(8, 8, 1), norm(8), reader(read, 8, 1)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.between(self.norm(self.first(x)).relu()))


def shuffled(x: Tensor, groups: int = 4) -> Tensor:
    count, channels, height, width = x.shape
    return x.view(count, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)


def group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(4, channels)


def network_of(*blocks: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    for block in blocks:
        for module in block.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return nn.Sequential(nn.Conv2d(3, 8, 1), *blocks, Head(8))


def pruned_layers(model: nn.Module, shape: tuple[int, int, int] = SHAPE) -> set[str]:
    """Of those of a model that may be pruned; none where nothing may be."""
    try:
        return {unit.layer for unit in DenseNetwork.verified(model, shape)[0].units}
    except UserError as refusal:
        assert "cannot be followed" in str(refusal) or "breaks the network" in str(refusal) or "couples" in str(refusal)
        return set()


def test_a_group_norm_elsewhere_excuses_no_layer():
    good, bad = Block(lambda x: x, norm=group_norm), Block(shuffled)
    for order in ((good, bad), (bad, good)):
        found = pruned_layers(network_of(*order))
        assert found == {f"{1 + order.index(good)}.first"}


def test_a_group_norm_excuses_not_the_layer_before_it_either():
    model = network_of(Block(shuffled, norm=group_norm), Block(lambda x: x, norm=group_norm))
    assert pruned_layers(model) == {"2.first"}


class Standardised(nn.Conv2d):
    """Each filter's weights less their mean, over their spread."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True, unbiased=False) + 1e-5)
        return self._conv_forward(x, weight, self.bias)


@pytest.mark.parametrize("norm", [group_norm, nn.BatchNorm2d])
def test_a_reader_that_standardises_its_weights_is_pruned_and_its_order_is_checked(norm):
    good = Block(lambda x: x, norm=norm, reader=Standardised)
    bad = Block(shuffled, norm=norm, reader=Standardised)
    assert pruned_layers(network_of(good, bad)) == {"1.first"}


def test_timm_s_standardised_convolutions():
    layers = pytest.importorskip("timm.layers", reason="timm is an extra of the package")
    good = Block(lambda x: x, norm=group_norm, reader=layers.StdConv2d)
    same = Block(lambda x: x, norm=group_norm, reader=layers.StdConv2dSame)
    bad = Block(shuffled, norm=group_norm, reader=layers.StdConv2d)
    assert pruned_layers(network_of(good, same, bad)) == {"1.first", "2.first"}


@pytest.mark.parametrize(
    "start",
    [
        lambda block: nn.init.zeros_(block.second.weight),
        lambda block: nn.init.constant_(block.last.weight, 0.0),
        lambda block: nn.init.constant_(block.scale, 1e-6),
    ],
    ids=["weights of zero", "a factor of zero", "a scale of nearly nothing"],
)
def test_what_a_network_begins_with_hides_no_fault(start):
    class Beginning(Block):
        def __init__(self) -> None:
            super().__init__(shuffled)
            self.last, self.scale = nn.BatchNorm2d(8), nn.Parameter(torch.ones(8, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.scale * self.last(self.second(self.between(self.norm(self.first(x)).relu())))

    block = Beginning()
    model = network_of(block, Block(lambda x: x))
    start(block)
    assert pruned_layers(model) == {"2.first"}


class Chain(nn.Module):
    """Twenty convolutions without norms, as torch draws them: what the first gives has faded behind the last."""

    def __init__(self, between) -> None:
        super().__init__()
        self.between = between
        self.layers = nn.ModuleList(nn.Conv2d(3 if number == 0 else 8, 8, 3, padding=1) for number in range(20))
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            x = layer(x).relu()
            x = self.between(x) if number == 0 else x
        return self.head(x)


def test_a_fault_that_fades_on_its_way_is_found():
    torch.manual_seed(0)
    found = pruned_layers(Chain(shuffled))
    assert "layers.0" not in found
    assert "layers.1" in found


class TokenNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class RootMeanSquare(nn.Module):
    """A user's norm over channels, without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.square().mean(1, keepdim=True).add(1e-6).rsqrt()


def nhwc_flattened(x: Tensor) -> Tensor:
    flat = x.permute(0, 2, 3, 1).flatten(1)
    return flat.view(len(x), x.shape[2], x.shape[3], -1).permute(0, 3, 1, 2)


LAYOUTS = {
    "nothing": (lambda x: x, 8),
    "roll": (lambda x: x.roll(3, 1), 8),
    "flip": (lambda x: x.flip(1), 8),
    "channel shuffle": (shuffled, 8),
    "torch's channel shuffle": (nn.ChannelShuffle(2), 8),
    "pixel shuffle": (lambda x: F.pixel_shuffle(x, 2), 2),
    "pixel unshuffle": (lambda x: F.pixel_unshuffle(x, 2), 32),
    "chunk": (lambda x: sum(x.chunk(2, 1)), 4),
    "split": (lambda x: torch.mul(*x.split(4, 1)), 4),
    "gated linear unit": (lambda x: F.glu(x, 1), 4),
    "padded shortcut": (lambda x: F.pad(x, (0, 0, 0, 0, 4, 4)), 16),
    "reshaped heads": (lambda x: x.view(len(x), 2, 4, *x.shape[2:]).softmax(2).view(x.shape), 8),
    "heads the other way": (lambda x: x.view(len(x), 2, 4, *x.shape[2:]).mul(2).transpose(1, 2).flatten(1, 2), 8),
    "einsum": (lambda x: torch.einsum("nchw->nhwc", x).permute(0, 3, 1, 2), 8),
    "interleaved": (lambda x: torch.stack([x, x.neg()], 2).flatten(1, 2), 16),
    "one behind the other": (lambda x: torch.cat([x, x.neg()], 1), 16),
    "index": (lambda x: x[:, [1, 0, 3, 2, 5, 4, 7, 6]], 8),
    "a mean over channels": (lambda x: x - x.mean(1, keepdim=True), 8),
    "a user's norm": (RootMeanSquare(), 8),
    "a norm over tokens": (TokenNorm(8), 8),
    "a norm over neighbours": (nn.LocalResponseNorm(3), 8),
    "a norm of each image's maps": (nn.InstanceNorm2d(8, affine=True), 8),
    "the same by statistics": (nn.InstanceNorm2d(8, affine=True, track_running_stats=True), 8),
    "shuffled there and back": (lambda x: shuffled(shuffled(x, 4), 2), 8),
    "frozen norm": (FrozenBatchNorm2d(8), 8),
    "NHWC flattened and back": (nhwc_flattened, 8),
    "a sort": (lambda x: x.sort(1).values, 8),
    "a cumulative sum": (lambda x: x.cumsum(1), 8),
}
MUST_BE_PRUNED = {"nothing", "a norm of each image's maps", "the same by statistics", "frozen norm"}


def dead(model: nn.Module, layer: str, filters: tuple[int, ...]) -> None:
    """Filters of a block that give nothing: their weights, biases and norms are zero."""
    block = model.get_submodule(layer.rpartition(".")[0])
    with torch.no_grad():
        for tensor in (block.first.weight, block.first.bias, block.norm.weight, block.norm.bias):
            tensor[list(filters)] = 0


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_refused_by_name_or_right(name):
    between, read = LAYOUTS[name]
    block = Block(between, read)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), block, Head(8)).eval()
    if name == "pixel shuffle":
        model[1].forward = lambda x: F.interpolate(x, scale_factor=2) + block.second(between(block.first(x).relu()))
    if name == "pixel unshuffle":
        model[1].forward = lambda x: F.avg_pool2d(x, 2) + block.second(between(block.first(x).relu()))
    found = pruned_layers(model)
    assert found <= {"1.first"}
    assert found or name not in MUST_BE_PRUNED
    for removed in ((0, 3, 4), (1, 2, 6, 7), (7,)) if found else ():
        own = DenseNetwork(model, SHAPE).build(CPU)
        for norm in own.modules():
            if getattr(norm, "running_mean", None) is not None:
                nn.init.uniform_(norm.running_mean, -0.5, 0.5)
                nn.init.uniform_(norm.running_var, 0.5, 1.5)
        dead(own, "1.first", removed)
        with torch.no_grad():
            if isinstance(between, (nn.InstanceNorm2d, FrozenBatchNorm2d)):
                between_own = own.get_submodule("1.between")
                between_own.bias[list(removed)] = 0
                if between_own.running_mean is not None:
                    between_own.running_mean[list(removed)] = 0
                if isinstance(between, FrozenBatchNorm2d):
                    between_own.weight[list(removed)] = 0
            images = torch.randn(3, *SHAPE)
            expected = own(images)
            remove_filters(own, SHAPE, {"1.first": removed})
            torch.testing.assert_close(own(images), expected)
        assert len(own[1].first.weight) == 8 - len(removed)


class Flattened(nn.Module):
    """A head of hidden units behind maps of several positions."""

    def __init__(self, flatten) -> None:
        super().__init__()
        self.conv, self.norm, self.flatten = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), flatten
        self.hidden, self.linear = nn.Linear(8 * 4, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.norm(self.conv(x)).relu(), 2)
        return self.linear(self.hidden(self.flatten(x)).relu())


@pytest.mark.parametrize(
    ("flatten", "prunes"),
    [
        (lambda x: x.flatten(1), True),
        (lambda x: x.reshape(len(x), -1), True),
        (lambda x: x.permute(0, 2, 3, 1).flatten(1), False),
        (lambda x: x.transpose(1, 2).reshape(len(x), -1), False),
    ],
    ids=["flatten", "reshape", "NHWC", "across"],
)
def test_heads_behind_maps_of_several_positions(flatten, prunes):
    torch.manual_seed(0)
    model = Flattened(flatten).eval()
    assert pruned_layers(model) == ({"conv", "hidden"} if prunes else {"hidden"})
    if prunes:
        with torch.no_grad():
            for tensor in (model.conv.weight, model.conv.bias, model.norm.weight, model.norm.bias):
                tensor[[2, 5]] = 0
        images = torch.randn(3, *SHAPE)
        expected = model(images)
        remove_filters(model, SHAPE, {"conv": (2, 5)})
        torch.testing.assert_close(model(images), expected)
        assert model.hidden.in_features == 24


def test_of_many_layers_those_that_go_wrong_are_told_apart():
    blocks = [Block(shuffled if number in (1, 4, 5) else (lambda x: x)) for number in range(7)]
    found = pruned_layers(network_of(*blocks))
    assert found == {f"{number + 1}.first" for number in (0, 2, 3, 6)}


def test_a_group_norm_keeps_its_groups_and_loses_as_many_filters_of_each():
    """Groups of two filters: half of them is the least that can go, and that is what is said."""
    model = nn.Sequential(nn.Conv2d(3, 64, 1), nn.GroupNorm(32, 64), nn.ReLU(), Head(64))
    network = DenseNetwork.verified(model, SHAPE)[0]
    unit = network.units[0]
    assert (unit.layer, unit.groups, Amounts(0.25).removed(unit)) == ("0", 32, 32)
    own = network.build(CPU)
    kept = torch.arange(1, 64, 2)
    expected = own[1].weight.detach()[kept].clone()
    remove_filters(own, SHAPE, {"0": tuple(range(0, 64, 2))})
    assert (own[1].num_groups, own[1].num_channels, own[0].out_channels) == (32, 32, 32)
    assert torch.equal(own[1].weight, expected)
    assert own(torch.randn(2, *SHAPE)).shape == (2, 2)
    built = network.build_pruned({"0": 32}, CPU)
    assert (built[1].num_groups, built[1].num_channels) == (32, 32)


def test_the_network_that_is_tried_is_left_as_it_is():
    model = network_of(Block(lambda x: x, norm=group_norm, reader=Standardised), Block(shuffled))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    DenseNetwork.verified(model, SHAPE)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_backbone_of_frozen_norms_is_pruned():
    models = pytest.importorskip("torchvision").models
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = models.resnet18(num_classes=4, norm_layer=FrozenBatchNorm2d).eval()
    network, selection = DenseNetwork.verified(model, (3, 32, 32))
    assert len(network.units) == 8
    assert not selection.faulty
    own = network.build(CPU)
    torch.manual_seed(0)
    for module in own.modules():
        if isinstance(module, FrozenBatchNorm2d):
            for tensor in module.buffers():
                tensor.uniform_(0.5, 1.5)
    removed = tuple(range(0, 64, 3))
    norm = own.layer1[0].bn1
    with torch.no_grad():
        own.layer1[0].conv1.weight[list(removed)] = 0
        norm.bias[list(removed)] = norm.running_mean[list(removed)] = 0
    graph = dependency_graph(own.requires_grad_(True), (3, 32, 32))
    assert any(item.dep.target.module is norm for item in removal_group(graph, own.layer1[0].conv1, [0]))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = own(images)
        remove_filters(own, (3, 32, 32), {"layer1.0.conv1": removed})
        torch.testing.assert_close(own(images), expected)
    assert {len(tensor) for tensor in norm.buffers()} == {64 - len(removed)}


class Choosy(nn.Module):
    """Bears few values of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor([4.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.level - 2).sqrt()


def test_a_network_that_bears_no_other_values_is_tried_with_its_own():
    model = nn.Sequential(Choosy(), *network_of(Block(shuffled), Block(lambda x: x)))
    assert pruned_layers(model) == {"3.first"}


def test_reshapes_that_the_graph_chokes_on_are_refused_by_name():
    def parts(x: Tensor) -> Tensor:
        back = shuffled(shuffled(x, 4), 2)
        return torch.cat([back[:, :4], back[:, 4:]], 1).reshape(len(x), 8, -1).reshape(x.shape)

    with pytest.raises(UserError, match="cannot be traced: it reshapes channels in a way that"):
        DenseNetwork.verified(network_of(Block(parts)), SHAPE)
    twice = Block(lambda x: torch.cat(torch.cat(x.chunk(2, 1), 1).chunk(2, 1), 1))
    assert pruned_layers(network_of(twice, Block(lambda x: x))) == {"2.first"}
