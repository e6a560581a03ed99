"""Coupled channels: what sums, concatenations, products and paddings tie together goes together, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ice_ray.engine.network import DenseNetwork
from ice_ray.errors import UserError
from ice_ray.models.copies import unsettled
from ice_ray.models.registry import ModelSpec
from ice_ray.models.units import PrunableUnit, all_kept, kept_without
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.channel_trace import trace_channels
from ice_ray.pruning.removal import remove_filters, shrink_to
from ice_ray.pruning.selection import Selection

SHAPE = (3, 8, 8)
CPU = torch.device("cpu")
COUPLED = Selection(coupled=True)


class Conv(nn.Sequential):
    """A convolution and its norm: with both at zero a filter is dead."""

    def __init__(self, given: int, gives: int, size: int = 1, groups: int = 1) -> None:
        super().__init__(nn.Conv2d(given, gives, size, padding=size // 2, groups=groups), nn.BatchNorm2d(gives))


class Net(nn.Module):
    """Layers by name, what is done with them, and a linear head over means."""

    def __init__(self, run: Callable[[Net, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.run = run
        self.scale: nn.Parameter | None = None
        with torch.no_grad():
            self.head = nn.Linear(self._flat(torch.zeros(1, *SHAPE)).shape[1], 4)

    def _flat(self, x: Tensor) -> Tensor:
        given = self.eval().run(self, x)
        return given.mean((2, 3)) if given.shape[-1] != 2 else given.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self._flat(x))


def two_blocks(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x).relu()
    x = (x + net.b(net.a(x).relu())).relu()
    return (x + net.d(net.c(x).relu())).relu()


def concatenated(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x).relu()
    return net.join(torch.cat([net.left(x).relu(), x, net.right(x).relu()], 1)).relu()


def densely(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    for layer in (net.a, net.b, net.c):
        x = torch.cat([x, layer(x.relu())], 1)
    return x


def gated_stream(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x).relu()
    y = net.b(net.a(x).relu())
    return x + y * net.excite(net.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()


def starred(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x).relu()
    return x + net.g(net.f1(x).relu() * net.f2(x))


def in_halves(net: Net, x: Tensor) -> Tensor:
    first, second = net.stem(x).relu().chunk(2, 1)
    return torch.cat([first, net.a(second)], 1).relu()


def shuffled(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x).relu()
    y = torch.cat([x, net.a(x)], 1)
    n, c, h, w = y.shape
    return net.b(y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)).relu()


def split_attended(net: Net, x: Tensor) -> Tensor:
    y = net.a(net.stem(x).relu()).relu()
    n, c, h, w = y.shape
    y = y.view(n, 2, c // 2, h, w)
    shares = net.shares(net.squeeze(y.sum(1).mean((2, 3), keepdim=True)).relu()).view(n, 2, c // 2, 1, 1).softmax(1)
    return net.b((y * shares).sum(1)).relu()


def grouped(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x).relu()
    return (x + net.b(net.a(x).relu())).relu()


def depthwise(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x).relu()
    x = (x + net.b(net.a(x).relu())).relu()
    return net.last(x)


def flattened(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x).relu()
    return F.adaptive_avg_pool2d((x + net.a(x)).relu(), 2)


def padded(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x).relu()
    return (F.pad(x, (0, 0, 0, 0, 2, 2)) + net.a(x)).relu()


def moved_on(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x).relu().roll((1, -2), (2, 3))
    return (x + net.a(x)).relu()


def parallel(net: Net, x: Tensor) -> Tensor:
    x = (net.a(x) + net.b(x)).relu()
    return (net.c(x) + net.d(x) + net.norm(x)).relu()


def ghostly(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x).relu()
    y = torch.cat([x, net.cheap(x)], 1)[:, :8]
    return (y + net.b(y)).relu()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "sums": lambda: Net(two_blocks, stem=Conv(3, 6), a=Conv(6, 5), b=Conv(5, 6), c=Conv(6, 7, 3), d=Conv(7, 6)),
    "a concatenation": lambda: Net(
        concatenated, stem=Conv(3, 5), left=Conv(5, 4), right=Conv(5, 6, 3), join=Conv(15, 6)
    ),
    "dense connections": lambda: Net(densely, stem=Conv(3, 4), a=Conv(4, 3), b=Conv(7, 4, 3), c=Conv(11, 5)),
    "a gate on a stream": lambda: Net(
        gated_stream, stem=Conv(3, 6), a=Conv(6, 4), b=Conv(4, 6), squeeze=nn.Conv2d(6, 3, 1), excite=nn.Conv2d(3, 6, 1)
    ),
    "a product": lambda: Net(starred, stem=Conv(3, 6), f1=Conv(6, 8), f2=Conv(6, 8), g=Conv(8, 6)),
    "halves": lambda: Net(in_halves, stem=Conv(3, 8), a=Conv(4, 4)),
    "a shuffle": lambda: Net(shuffled, stem=Conv(3, 6), a=Conv(6, 6, 3), b=Conv(12, 5)),
    "split attention": lambda: Net(
        split_attended,
        stem=Conv(3, 6),
        a=Conv(6, 12, 3, groups=2),
        squeeze=nn.Conv2d(6, 4, 1),
        shares=nn.Conv2d(4, 12, 1),
        b=Conv(6, 5),
    ),
    "groups": lambda: Net(grouped, stem=Conv(3, 8), a=Conv(8, 8, 3, groups=2), b=Conv(8, 8)),
    "depthwise": lambda: Net(
        depthwise,
        stem=Conv(3, 6),
        a=nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
        b=Conv(6, 6),
        last=nn.Conv2d(6, 6, 1, groups=6, bias=False),
    ),
    "flattened": lambda: Net(flattened, stem=Conv(3, 6), a=Conv(6, 6, 3)),
    "a padding in the forward pass": lambda: Net(padded, stem=Conv(3, 6), a=Conv(6, 10, 3)),
    "positions moved on": lambda: Net(moved_on, stem=Conv(3, 6), a=Conv(6, 6, 3)),
    "parallel branches": lambda: Net(
        parallel, a=Conv(3, 6), b=Conv(3, 6, 3), c=Conv(6, 6), d=Conv(6, 6, 3), norm=nn.BatchNorm2d(6)
    ),
    "cheap features, cut to width": lambda: Net(
        ghostly, stem=Conv(3, 4), cheap=nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), b=Conv(8, 8)
    ),
    "option A": lambda: ModelSpec("cifar-resnet8", 10).build(),
}
WHOLE: dict[str, set[str]] = {
    "sums": {"stem.0", "a.0", "c.0"},
    "a concatenation": {"stem.0", "left.0", "right.0", "join.0"},
    "dense connections": {"stem.0", "a.0", "b.0", "c.0"},
    "a gate on a stream": {"stem.0", "a.0", "squeeze"},
    "a product": {"stem.0", "f1.0"},
    "halves": {"stem.0", "a.0"},
    "a shuffle": {"stem.0", "b.0"},
    "split attention": {"stem.0", "a.0", "squeeze", "b.0"},
    "groups": {"stem.0", "a.0"},
    "depthwise": {"stem.0"},
    "flattened": {"stem.0"},
    "a padding in the forward pass": {"a.0"},
    "positions moved on": {"stem.0"},
    "parallel branches": {"a.0"},
    "cheap features, cut to width": {"b.0"},
    "option A": {f"layer{stage}.0.conv1" for stage in (1, 2, 3)} | {"layer3.0.conv2"},
}


def opened(name: str) -> DenseNetwork:
    torch.manual_seed(0)
    network, selection = DenseNetwork.verified(unsettled(NETWORKS[name]()), SHAPE, COUPLED)
    assert not selection.faulty
    return network


def drawn(network: DenseNetwork, chance: random.Random) -> dict[str, tuple[int, ...]]:
    """Filters of every unit to remove, any number that may go."""
    removed = {}
    for unit in network.units:
        run = unit.filters // unit.groups
        free = [place for place in range(run) if place not in unit.fixed]
        places = chance.sample(free, chance.randint(0, min(len(free), run - 1)))
        removed[unit.layer] = tuple(sorted(each + start for start in range(0, unit.filters, run) for each in places))
    return removed


def lost(network: DenseNetwork, removed: dict[str, tuple[int, ...]]) -> dict[str, list[int]]:
    """By layer, all filters that go with these."""
    every = all_kept(network.units)
    kept = kept_without(network.units, every, removed)
    return {layer: sorted({*every[layer]} - {*kept[layer]}) for layer in every}


def kill(model: nn.Module, layer: str, filters: list[int]) -> None:
    """Filters give zero, whatever they read."""
    norm = layer.removesuffix("0") + "1" if layer.endswith(".0") else layer.replace("conv", "bn")
    behind = [norm] * (norm != layer) + ["norm"] * (layer == "a.0" and hasattr(model, "norm"))
    with torch.no_grad():
        for each in map(model.get_submodule, (layer, *behind)):
            for tensor in (each.weight, each.bias, getattr(each, "running_mean", None)):
                if tensor is not None:
                    tensor[filters] = 0


@pytest.mark.parametrize("name", NETWORKS)
def test_dead_filters_anywhere_in_a_coupled_set_go_without_changing_a_logit(name):
    network, chance = opened(name), random.Random(name)
    for _ in range(6):
        removed = drawn(network, chance)
        model = unsettled(network.build(CPU))
        for layer, filters in lost(network, removed).items():
            kill(model, layer, filters)
        images = torch.randn(3, *SHAPE)
        with torch.no_grad():
            before = model(images)
            remove_filters(model, SHAPE, removed)
            torch.testing.assert_close(model(images), before, rtol=1e-4, atol=1e-5)
        for layer, filters in lost(network, removed).items():
            assert len(model.get_submodule(layer).weight) == dict(owners(network))[layer] - len(filters)


def owners(network: DenseNetwork) -> list[tuple[str, int]]:
    return [(layer, len(kept)) for layer, kept in all_kept(network.units).items()]


@pytest.mark.parametrize("name", NETWORKS)
def test_all_is_found_that_may_go(name):
    assert {unit.layer for unit in opened(name).units} == WHOLE[name]


def read_columns(unit: PrunableUnit, model: nn.Module, reader: str) -> list[int]:
    """For each input of a reader, the filter that a unit says it is."""
    known, module = dict(unit.columns), model.get_submodule(reader)
    if reader in known:
        return list(known[reader])
    inputs = module.in_channels if isinstance(module, nn.Conv2d) else module.in_features
    return [number // (inputs // unit.filters) for number in range(inputs)]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_columns_of_readers_are_those_that_change_with_a_filter(name):
    """By brute force: nothing is read, so that a change of a filter is seen where it arrives, and nowhere else."""
    network, images = opened(name), torch.rand(1, *SHAPE)
    for unit in network.units:
        seen = {}
        for number in range(-1, unit.filters):
            model = unsettled(network.build(CPU))
            readers = {reader for each in network.units for reader in each.consumers}
            with torch.no_grad():
                for reader in readers:
                    model.get_submodule(reader).weight.zero_()
                for owner, filters in (
                    (unit.layer, range(unit.filters)),
                    *((gate, range(unit.filters)) for gate in unit.gates),
                    *unit.coupled,
                ):
                    bias = dict(model.named_parameters()).get(f"{owner}.bias")
                    rows = [row for row, each in enumerate(filters) if each == number]
                    if bias is None:  # in a norm, then
                        bias = model.get_parameter(owner.replace("conv", "bn") + ".bias")
                    bias += 3  # above what a ReLU would hide
                    bias[rows] += 1
            seen[number] = inputs_of(model, unit.consumers, images)
        for reader in unit.consumers:
            columns = read_columns(unit, network.build(CPU), reader)
            changed: dict[int, set[int]] = {}
            for number in range(unit.filters):
                differs = (seen[number][reader] != seen[-1][reader]).nonzero()[:, 0].tolist()
                changed[number] = set(differs)
            expected = {number: {at for at, each in enumerate(columns) if each == number} for number in changed}
            if unit.groups == 1:
                assert changed == expected, (unit, reader)
            else:  # each filter arrives where one of those does that go with it
                run = unit.filters // unit.groups
                for number in range(run):
                    alike = range(number, unit.filters, run)
                    assert set().union(*(changed[each] for each in alike)) == set().union(
                        *(expected[each] for each in alike)
                    ), (unit, reader)


def inputs_of(model: nn.Module, readers: tuple[str, ...], images: Tensor) -> dict[str, Tensor]:
    """What each of them reads of one image, a row for each input channel."""
    read: dict[str, Tensor] = {}
    for reader in readers:
        model.get_submodule(reader).register_forward_pre_hook(
            lambda _, given, own=reader: read.update({own: given[0][0].flatten(1) if given[0].ndim > 2 else given[0].T})
        )
    with torch.no_grad():
        model.eval()(images)
    return read


@pytest.mark.parametrize("name", NETWORKS)
def test_a_dense_model_takes_the_filters_of_a_pruned_one(name):
    network = opened(name)
    removed = drawn(network, random.Random(3))
    pruned = network.build(CPU)
    remove_filters(pruned, SHAPE, removed)
    kept = kept_without(network.units, all_kept(network.units), removed)
    fresh = network.build_pruned({unit.layer: kept[unit.layer] for unit in network.units}, CPU)
    fresh.load_state_dict(pruned.state_dict())
    images = torch.randn(2, *SHAPE)
    assert torch.equal(fresh.eval()(images), pruned.eval()(images))


def test_step_by_step_is_as_good_as_at_once():
    network = opened("option A")
    removed = drawn(network, random.Random(1))
    at_once, in_turn = network.build(CPU), network.build(CPU)
    remove_filters(at_once, SHAPE, removed)
    for layer, filters in reversed(removed.items()):
        remove_filters(in_turn, SHAPE, {layer: filters})
    assert all(torch.equal(one, in_turn.state_dict()[key]) for key, one in at_once.state_dict().items())


def test_the_stages_of_option_a_are_one_unit_whose_root_is_the_widest():
    network = opened("option A")
    unit = network.units[-1]
    assert (unit.layer, unit.filters) == ("layer3.0.conv2", 64)
    assert dict(unit.coupled) == {
        "conv1": tuple(range(24, 40)),
        "layer1.0.conv2": tuple(range(24, 40)),
        "layer2.0.conv2": tuple(range(16, 48)),
    }
    assert dict(unit.columns)["layer2.0.conv1"] == tuple(range(24, 40))
    assert unit.fixed == (24,)  # else its narrowest layers might be left with none
    assert [step.name for step in network.steps][-1] == "layer3.0.conv2"  # after the steps of the blocks
    pruned = network.build(CPU)
    remove_filters(pruned, SHAPE, {unit.layer: (0, 16, 25, 63)})
    shortcuts = [pruned.get_submodule(f"layer{stage}.0.shortcut") for stage in (2, 3)]
    assert [(each.before, each.after) for each in shortcuts] == [(7, 8), (15, 15)]
    assert pruned.conv1.out_channels == 15


def test_a_padding_that_a_forward_pass_holds_keeps_the_filters_that_would_change_it():
    unit = next(unit for unit in opened("a padding in the forward pass").units if unit.layer == "a.0")
    assert unit.fixed[:2] == (0, 1)
    assert unit.fixed[-2:] == (8, 9)
    assert Amounts(0.9).removed(unit) == unit.filters - len(unit.fixed)


def test_a_gate_is_told_from_a_term_of_a_sum():
    units = {unit.layer: unit for unit in opened("a gate on a stream").units}
    assert units["stem.0"].gates == ("excite",)
    assert units["stem.0"].coupled == (("b.0", tuple(range(6))),)
    assert opened("a product").units[-1].gates == ("f2.0",) or opened("a product").units[0].gates == ("f2.0",)


def test_filters_go_alike_from_runs_that_are_tied():
    units = {unit.layer: unit for unit in opened("halves").units}
    assert units["stem.0"].groups == 2


class Streamed(nn.Module):
    """A residual stream with a norm over its channels that has no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 4, stride=4), nn.LayerNorm(8, elementwise_affine=False)
        self.up, self.down, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = x + self.down(self.up(self.norm(x)).relu())
        return self.head(x.mean(1))


def mean_over_channels(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x).relu()
    x = x + net.a(x)
    return x - x.mean(1, keepdim=True)


def picked(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x).relu()
    return (x + net.a(x))[:, [0, 2, 1, 3]]


def rolled(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x).relu()
    return net.a((x + net.a(x)).roll(1, 1))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "a layer norm": (Streamed, "stem", "norm, a layer norm without weights, divides each by all of them"),
    "a mean": (
        lambda: Net(mean_over_channels, stem=Conv(3, 6), a=Conv(6, 6)),
        "stem.0",
        "a mean goes over its channels",
    ),
    "an index": (
        lambda: Net(picked, stem=Conv(3, 6), a=Conv(6, 6)),
        "stem.0",
        "index takes some of them by their numbers",
    ),
    "a roll": (lambda: Net(rolled, stem=Conv(3, 6), a=Conv(6, 6)), "stem.0", "the operation roll reads them"),
}


@pytest.mark.parametrize(("build", "layer", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_go_is_refused_with_the_operation(build, layer, reason):
    try:
        refused = DenseNetwork(build(), SHAPE, COUPLED).refused[layer]
    except UserError as error:
        refused = str(error)
    assert reason in refused


def test_reshapes_that_the_graph_chokes_on_are_followed_all_the_same():
    """ShuffleNet: halves, of which one is read, shuffled with the other."""
    models = pytest.importorskip("torchvision").models
    model = unsettled(models.shufflenet_v2_x0_5(num_classes=4))
    shape = (3, 32, 32)
    with pytest.raises(UserError, match="cannot be traced"):
        DenseNetwork(model, shape)
    network, selection = DenseNetwork.verified(model, shape, COUPLED)
    assert not selection.faulty
    assert {"conv1.0", "stage2.1.branch2.0", "stage4.3.branch2.0", "conv5.0"} <= {unit.layer for unit in network.units}
    assert "tied to each other" in network.refused["stage3.0.branch1.2"]
    left = {unit.layer: unit.filters - Amounts(0.5).removed(unit) for unit in network.units}
    pruned = network.build_pruned(left, CPU)
    assert pruned(torch.rand(1, *shape)).shape == (1, 4)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_of_known_networks_half_the_filters_leave_a_third_of_the_weights_at_most(name):
    models, shape = pytest.importorskip("torchvision").models, (3, 64, 64)
    torch.manual_seed(0)
    model = unsettled(getattr(models, name)(num_classes=10))
    network, selection = DenseNetwork.verified(model, shape, COUPLED)
    assert not selection.faulty
    assert {unit.layer for unit in DenseNetwork(model, shape).units} < {unit.layer for unit in network.units}
    left = {unit.layer: unit.filters - Amounts(0.5).removed(unit) for unit in network.units}
    assert network.unpruned_share(network.build_pruned(left, CPU), "parameters") < 1 / 3


def test_without_being_asked_for_nothing_coupled_goes():
    for name in NETWORKS:
        try:
            network = DenseNetwork(NETWORKS[name](), SHAPE)
        except UserError:
            continue
        assert not any(unit.coupled or unit.columns or unit.fixed for unit in network.units)
        assert WHOLE[name] >= {unit.layer for unit in network.units}


def test_filters_that_must_stay_cannot_be_removed():
    network = opened("a padding in the forward pass")
    with pytest.raises(
        ValueError, match=r"filter 0 of layer 'a\.0' must stay: a padding with a number of zero channels"
    ):
        remove_filters(network.build(CPU), SHAPE, {"a.0": (0,)})
    with pytest.raises(ValueError, match="of them must stay"):
        shrink_to(network.build(CPU), SHAPE, {"a.0": 1})


def test_the_trace_leaves_the_model_as_it_is():
    model = NETWORKS["sums"]().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trace_channels(model, SHAPE)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Response(nn.Module):
    """The global response norm of ConvNeXt V2, on channels in the last dimension."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.eps = 0.1
        self.weight, self.bias = nn.Parameter(torch.rand(channels)), nn.Parameter(torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        energy = x.norm(dim=(1, 2), keepdim=True)
        return x + self.bias + self.weight * x * energy / (energy.mean(-1, keepdim=True) + self.eps)


class Responding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up, self.norm, self.down = nn.Conv2d(3, 6, 1), nn.Linear(6, 9), Response(9), nn.Linear(9, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        return self.head((x + self.down(self.norm(self.up(x).relu()))).mean((1, 2)))


def test_a_response_norm_gives_what_it_gave_beside_dead_channels():
    torch.manual_seed(0)
    network, selection = DenseNetwork.verified(Responding(), SHAPE, COUPLED)
    assert not selection.faulty
    assert {unit.layer for unit in network.units} == {"up", "stem"}
    model, removed = network.build(CPU), (0, 3, 4, 8)
    with torch.no_grad():
        for tensor in (model.up.weight, model.up.bias, model.norm.bias):
            tensor[list(removed)] = 0
        images = torch.randn(3, *SHAPE)
        before = model(images)
        remove_filters(model, SHAPE, {"up": removed[:1]})
        remove_filters(model, SHAPE, {"up": (2, 3, 7)})  # the others, as the layer is now
        torch.testing.assert_close(model(images), before)
    assert model.norm.weight.shape == model.norm.bias.shape == (5,)
    assert model.norm.eps == pytest.approx(0.1 * 9 / 5)


class Sized(nn.Module):
    """Its forward pass reshapes to numbers that it holds; `parts` and `places` are no numbers of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.half, self.parts, self.places = 8, 4, 2, 16
        self.stem, self.mix = nn.Conv2d(3, 8, 2, 2), nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).reshape(len(x), self.width, self.places)
        first, second = x.view(-1, self.width, 4, 4).split(self.half, dim=1)
        return self.head(torch.cat([self.mix(first), second], 1).flatten(2).mean(2))


def test_numbers_that_a_forward_pass_reshapes_to_go_down_with_the_channels():
    network, selection = DenseNetwork.verified(unsettled(Sized()), SHAPE, COUPLED)
    assert not selection.faulty
    assert {unit.layer for unit in network.units} == {"stem", "mix"}
    model = network.build_pruned({"stem": (0, 2, 3, 4, 6, 7)}, CPU)
    assert (model.width, model.half, model.parts, model.places) == (6, 3, 2, 16)
    assert model(torch.zeros(2, *SHAPE)).shape == (2, 4)
    assert (network.build(CPU).width, type(network.build(CPU).width)) == (8, int)
