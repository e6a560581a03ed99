"""Repairs in closed form: what they must reproduce exactly, and what they may never make worse."""

import copy
import dataclasses
import gc

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ice_ray.engine.collective import Alone
from ice_ray.engine.network import DenseNetwork
from ice_ray.models.registry import ModelSpec
from ice_ray.models.trace import trace_layers
from ice_ray.pruning.calibration import ScoringContext
from ice_ray.pruning.compensation import compensate, recalibrate
from ice_ray.pruning.compensation import least_squares as refitting
from ice_ray.pruning.compensation.normal_equations import NormalEquations
from ice_ray.pruning.compensation.patches import Places, input_rows, output_rows, positions_of, reads_and_gives
from ice_ray.pruning.criteria import criterion_named, lowest
from ice_ray.pruning.removal import remove_filters
from ice_ray.pruning.units import PrunableUnit, dissect

SHAPE = (3, 10, 10)


def pictures(count: int = 48) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def batches(images: torch.Tensor, size: int = 16):
    return lambda: ((part, torch.zeros(len(part), dtype=torch.int64)) for part in images.split(size))


class Chain(nn.Module):
    """A pruned layer, something between, and what reads it."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x):
        return self.parts(x).flatten(1)


def repeat_filters(layer: nn.Module, norm: nn.Module | None = None) -> None:
    """The second half of a layer's filters become multiples of the first half's."""
    half = len(layer.weight) // 2
    with torch.no_grad():
        layer.weight[half:] = 2 * layer.weight[:half]
        if layer.bias is not None:
            layer.bias[half:] = 2 * layer.bias[:half]
        if norm is not None:
            for name in ("weight", "bias", "running_mean"):
                getattr(norm, name)[half:] = (2 if name == "running_mean" else 3) * getattr(norm, name)[:half]
            norm.running_var[half:] = 4 * norm.running_var[:half]
            norm.eps = 1e-12


def with_statistics(model: nn.Module) -> nn.Module:
    """Batch norms that know the images."""
    model.train()
    model(pictures())
    return model.eval()


def conv_to_conv(**options) -> tuple[nn.Module, nn.Module | None]:
    layer, norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
    return Chain(layer, norm, nn.ReLU(), nn.Conv2d(8, 6, 3, **options), nn.BatchNorm2d(6)), norm


def depthwise_between() -> tuple[nn.Module, nn.Module | None]:
    between = nn.Conv2d(8, 8, 3, groups=8, bias=False)
    with torch.no_grad():
        between.weight[4:] = between.weight[:4]
    return Chain(nn.Conv2d(3, 8, 1), nn.ReLU(), between, nn.Conv2d(8, 4, 1)), None


def linear_reader() -> tuple[nn.Module, nn.Module | None]:
    parts = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5))
    return Chain(*parts), None


def hidden_units() -> tuple[nn.Module, nn.Module | None]:
    return Chain(nn.Flatten(), nn.Linear(300, 8), nn.ReLU(), nn.Linear(8, 5)), None


class TwoReaders(Chain):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3), nn.ReLU())
        self.left, self.right = nn.Conv2d(8, 4, 3), nn.Conv2d(8, 2, 1, stride=2)

    def forward(self, x):
        read = self.parts(x)
        return torch.cat([self.left(read).mean((2, 3)), self.right(read).mean((2, 3))], 1)


NETWORKS = {
    "batch norm and activation": conv_to_conv,
    "stride, padding, bias": lambda: conv_to_conv(stride=2, padding=1, bias=True),
    "dilation and reflection": lambda: conv_to_conv(dilation=2, padding=2, padding_mode="reflect", bias=False),
    "groups": lambda: conv_to_conv(groups=2, bias=True),
    "depthwise between": depthwise_between,
    "linear reader": linear_reader,
    "hidden units": hidden_units,
    "several readers": lambda: (TwoReaders(), None),
}


class Case:
    """A network whose first layer's second half can be spared, and what is needed to prune it."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(1)
        model, norm = NETWORKS[name]()
        self.dense = with_statistics(model)
        self.layer = next(key for key, each in model.named_modules() if isinstance(each, (nn.Conv2d, nn.Linear)))
        repeat_filters(model.get_submodule(self.layer), norm)
        for each in model.modules():  # those that read what has just been changed
            if isinstance(each, nn.BatchNorm2d) and each is not norm:
                recalibrate(model, batches(pictures(), 48), Alone(), self.layer)
        self.traces = trace_layers(model, SHAPE)
        anatomy = dissect(model, SHAPE, self.traces)
        self.unit = next(unit for step in anatomy.steps for unit in step.units if unit.layer == self.layer)
        self.order = [trace.name for trace in self.traces]

    def context(self, model: nn.Module, images=None, size: int = 48) -> ScoringContext:
        norms = {trace.name: trace.norm for trace in self.traces}
        given = batches(pictures() if images is None else images, size)
        return ScoringContext(model, (self.unit,), norms, (0, "step", 1), given, Alone(), lambda: self.dense)

    def pruned(self, kind: str, removed: tuple[int, ...]) -> tuple[nn.Module, dict]:
        model = copy.deepcopy(self.dense)
        gone = {self.layer: removed}
        remove_filters(model, SHAPE, gone)
        errors = {}
        if kind != "none":
            errors = compensate(self.context(model), kind, gone, self.order)
        return model, errors


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"groups"}))
def test_filters_that_others_can_stand_in_for_go_without_a_trace(name):
    """Half of the filters are multiples of the other half: refitted, the network answers as before."""
    case = Case(name)
    removed = (4, 5, 6, 7)
    expected = case.dense(pictures())
    untouched, _ = case.pruned("none", removed)
    assert (untouched(pictures()) - expected).abs().max() > 0.05
    repaired, errors = case.pruned("least-squares", removed)
    assert set(errors) == set(case.unit.consumers)
    assert all(after < 1e-9 < before for before, after in errors.values())
    torch.testing.assert_close(repaired(pictures()), expected, atol=2e-3, rtol=1e-3)


def test_every_group_is_fitted_by_itself():
    """Filters 1 and 3 of each group's four are multiples of 0 and 2."""
    case = Case("groups")
    layer, norm = case.dense.parts[0], case.dense.parts[1]
    with torch.no_grad():
        for kept, spare in ((0, 1), (2, 3), (4, 5), (6, 7)):
            layer.weight[spare] = 2 * layer.weight[kept]
            norm.weight[spare], norm.bias[spare] = 3 * norm.weight[kept], 3 * norm.bias[kept]
            norm.running_mean[spare] = 2 * norm.running_mean[kept]
            norm.running_var[spare] = 4 * norm.running_var[kept]
    recalibrate(case.dense, batches(pictures(), 48), Alone(), case.layer)
    repaired, errors = case.pruned("least-squares", (1, 3, 5, 7))
    assert all(after < 1e-9 < before for before, after in errors.values())
    torch.testing.assert_close(repaired(pictures()), case.dense(pictures()), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_refit_never_leaves_more_unexplained_than_there_was(name):
    case = Case(name)
    for removed in ((0, 1, 4, 5), (2, 6)):
        _, errors = case.pruned("least-squares", removed)
        assert errors
        assert all(after <= before + 1e-9 for before, after in errors.values())


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.integers(1, 40)),
    constant=st.booleans(),
    ridge=st.floats(1e-6, 10),
    seed=st.integers(0, 99),
)
def test_a_solution_is_at_least_as_good_as_its_prior(sizes, constant, ridge, seed):
    groups, inputs, outputs, rows = sizes
    drawn = torch.Generator().manual_seed(seed)
    x, y, prior = (
        torch.randn(groups, *each, generator=drawn).double()
        for each in ((rows, inputs), (rows, outputs), (inputs, outputs))
    )
    equations = NormalEquations(groups, inputs, outputs, constant, torch.device("cpu"))
    for part, targets in zip(x.split(7, dim=1), y.split(7, dim=1), strict=True):
        equations.add(part, targets)
    found = equations.solve(prior, ridge)
    assert equations.error(found) <= equations.error(prior) + 1e-9
    if constant:
        x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    left, whole = (y - x @ found).square().sum(), y.square().sum()
    if whole > 1e-6:
        assert equations.error(found) == pytest.approx(float(left / whole), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_rows_times_weights_are_the_layer_s_own_outputs(data):
    """Oracle: the convolution itself."""
    groups = data.draw(st.sampled_from([1, 2, 4]))
    layer = nn.Conv2d(
        4, 8, data.draw(st.sampled_from([1, 3, (1, 3)])), data.draw(st.sampled_from([1, 2, (2, 1)])),
        data.draw(st.sampled_from([0, 1, "valid"])), data.draw(st.sampled_from([1, 2])), groups, True,
        data.draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"])),
    )  # fmt: skip
    images = torch.randn(2, 4, 12, 12)
    output = layer(images)
    places = Places.drawn(2, positions_of(layer, output), (0,), images.device)
    rows = input_rows(layer, images, output.shape[2:], places)
    weight = layer.weight.flatten(1).unflatten(0, (groups, -1)).mT
    found = (rows @ weight).movedim(0, 1).flatten(1) + layer.bias
    torch.testing.assert_close(found, output_rows(layer, output, places), atol=1e-4, rtol=1e-4)


def test_recalibrated_statistics_are_those_of_a_pass_over_all_images():
    """Oracle: torch's own, in training mode on one batch of all images."""
    torch.manual_seed(0)
    model, _ = conv_to_conv()
    expected = Chain(*model.parts)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    for norm in (expected.parts[1], expected.parts[4]):
        norm.momentum = 1.0
    expected.train()
    expected(pictures())
    wanted = {key: value.clone() for key, value in expected.state_dict().items() if "running" in key}
    model.load_state_dict(state)
    for norm in (model.parts[1], model.parts[4]):
        norm.momentum = 0.1
    model.eval()
    recalibrate(model, batches(pictures(), 48), Alone())
    found = model.state_dict()
    assert all(torch.allclose(found[key], value, atol=1e-6) for key, value in wanted.items())
    assert int(found["parts.1.num_batches_tracked"]) == int(state["parts.1.num_batches_tracked"])
    assert not any(module.training for module in model.modules())
    # In pieces the first norm reads the same, whatever the pieces.
    model.load_state_dict(state)
    recalibrate(model, batches(pictures(), 7), Alone())
    for key in ("parts.1.running_mean", "parts.1.running_var"):
        torch.testing.assert_close(model.state_dict()[key], wanted[key], atol=1e-6, rtol=1e-5)


def test_norms_before_the_first_pruned_layer_stay():
    torch.manual_seed(0)
    model = Chain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    recalibrate(model, batches(pictures(), 16), Alone(), "parts.3")
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"parts.4.running_mean", "parts.4.running_var"}


def test_elimination_finds_the_filters_that_others_stand_in_for():
    """Of each pair of multiples one goes before any filter that nothing stands in for."""
    case = Case("batch norm and activation")
    with torch.no_grad():  # 3 and 7 are left single: only 0, 1, 2 have a double
        case.dense.parts[0].weight[7] = torch.randn(3, 3, 3)
    recalibrate(case.dense, batches(pictures(), 48), Alone())
    scores = criterion_named("residual").score(case.context(case.dense))[case.layer]
    gone = lowest(scores, 3)
    assert len({index % 4 for index in gone}) == 3
    assert not {3, 7} & set(gone)


def test_elimination_s_order_is_that_of_refits_made_one_by_one():
    """Oracle: at every step each filter left is tried by solving its least squares anew."""
    torch.manual_seed(3)
    model = with_statistics(Chain(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3)))
    traces = trace_layers(model, SHAPE)
    unit = dissect(model, SHAPE, traces).steps[0].units[0]
    norms = {trace.name: trace.norm for trace in traces}
    context = ScoringContext(model, (unit,), norms, (0,), batches(pictures(), 48), Alone(), lambda: model)
    order = criterion_named("residual").score(context)["parts.0"]
    given, output = reads_and_gives(model, "parts.2", pictures())
    places = Places.drawn(48, positions_of(model.parts[2], output), (0, "parts.2", 0, 0), given.device)
    x = input_rows(model.parts[2], given, output.shape[2:], places)[0].double()
    y = output_rows(model.parts[2], output, places).double()
    x, y = x - x.mean(0), y - y.mean(0)
    left = list(range(6))
    while len(left) > 1:

        def error(filters: list[int]) -> float:
            columns = x.unflatten(1, (6, 9))[:, filters].flatten(1)
            return float((y - columns @ torch.linalg.lstsq(columns, y).solution).square().sum())

        goes = min(left, key=lambda which: error([each for each in left if each != which]))
        assert int(order[goes]) == 6 - len(left)
        left.remove(goes)


def test_inputs_that_are_dead_or_constant_keep_their_weights():
    drawn = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 30, 3, generator=drawn), torch.randn(2, 30, 2, generator=drawn)
    x[0], prior = 0, torch.randn(2, 3, 2, generator=drawn).double()
    for constant in (False, True):
        equations = NormalEquations(2, 3, 2, constant, torch.device("cpu"))
        equations.add(x, y)
        found = equations.solve(prior, 1e-8)
        assert torch.equal(found[0], prior[0])
        assert not torch.allclose(found[1], prior[1])
    x[0] = 5
    equations = NormalEquations(2, 3, 2, True, torch.device("cpu"))
    equations.add(x, y)
    torch.testing.assert_close(equations.solve(prior, 1e-4)[0], prior[0], atol=1e-3, rtol=0)


def test_a_batch_of_one_value_is_counted_but_does_not_normalise():
    torch.manual_seed(0)
    model = Chain(nn.Conv2d(3, 4, 10), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    images = pictures(17)
    recalibrate(model, batches(images, 16), Alone())
    read = model.parts[0](images).flatten(1).detach()
    torch.testing.assert_close(model.parts[1].running_mean, read.mean(0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model.parts[1].running_var, read.var(0), atol=1e-6, rtol=1e-5)


def test_where_there_are_fewer_images_than_inputs_other_images_suffer_no_more():
    """Left to itself the fit would reproduce every calibration image, and nothing else."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Flatten(), nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 5)).eval()
    model, gone = copy.deepcopy(dense), {"1": tuple(range(0, 200, 2))}
    remove_filters(model, SHAPE, gone)
    untouched = copy.deepcopy(model)
    unit = PrunableUnit("1", 200, ("3",))
    factors = torch.randn(10, *SHAPE)  # images have something in common, else there is nothing to learn from them
    some, others = (torch.einsum("nf,fchw->nchw", torch.randn(count, 10), factors) for count in (80, 500))
    own = ScoringContext(model, (unit,), {}, (0,), batches(some, 20), Alone(), lambda: dense)
    errors = compensate(own, "least-squares", gone, ["1", "3"])
    assert errors["3"][1] < errors["3"][0]
    wanted = dense(others)
    before, after = ((each(others) - wanted).square().mean() for each in (untouched, model))
    assert after < before


class Standardised(nn.Conv2d):
    """Computes from its weights something else than a convolution with them."""

    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias)


def test_layers_that_do_something_of_their_own_are_left_alone():
    assert refitting.can_be_refitted(nn.Conv2d(3, 4, 3))
    assert refitting.can_be_refitted(nn.Linear(3, 4))
    assert not refitting.can_be_refitted(Standardised(3, 4, 3))
    assert not refitting.can_be_refitted(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)))
    assert not refitting.can_be_refitted(nn.BatchNorm2d(3))


def test_a_squeeze_and_excitation_is_refitted_with_the_block_around_it():
    """Its second layer loses filters with the layer that it gates, and reads those of its first."""
    torch.manual_seed(0)
    network = DenseNetwork(ModelSpec("torchvision:mobilenet_v3_small", 10).build(), (3, 32, 32))
    step = next(step for step in network.steps if any(unit.gates for unit in step.units))
    dense = network.build(torch.device("cpu"))
    model = network.build(torch.device("cpu"))
    gone = {unit.layer: tuple(range(0, unit.filters, 2)) for unit in step.units}
    remove_filters(model, (3, 32, 32), gone)
    images = torch.randn(40, 3, 32, 32)
    own = ScoringContext(model, step.units, network.norms, (0,), batches(images, 20), Alone(), lambda: dense)
    errors = compensate(own, "least-squares", gone, [trace.name for trace in network.traces])
    assert {gate for unit in step.units for gate in unit.gates} <= set(errors)
    assert all(after <= before + 1e-9 for before, after in errors.values())


def test_a_layer_that_is_too_wide_is_left_alone(monkeypatch):
    monkeypatch.setattr(refitting, "WIDEST", 35)
    case = Case("batch norm and activation")
    weights = case.dense.parts[3].weight[:, :4].clone()
    model, errors = case.pruned("least-squares", (4, 5, 6, 7))
    assert errors == {}
    assert torch.equal(model.parts[3].weight, weights)


def test_memory_is_flat_in_the_number_of_images():
    """Live tensors, counted whenever a batch is fetched: no more at the last than at the second."""
    case, seen = Case("batch norm and activation"), []

    def given():
        for number in range(9):
            seen.append(sum(t.numel() * t.element_size() for t in gc.get_objects() if isinstance(t, torch.Tensor)))
            yield pictures(8) + number, torch.zeros(8, dtype=torch.int64)

    model = copy.deepcopy(case.dense)
    remove_filters(model, SHAPE, {case.layer: (0, 5)})
    own = dataclasses.replace(case.context(model), batches=given)
    compensate(own, "least-squares", {case.layer: (0, 5)}, case.order)
    assert len(seen) == 27  # norms before the layer, the layer, all norms
    for start in (0, 9, 18):
        assert max(seen[start : start + 9]) <= max(seen[start : start + 2])


def test_hidden_activations_are_what_the_rows_are_made_of():
    """A layer's input is caught as it stands, though what follows works in place."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1), nn.ReLU(inplace=True))
    given, output = reads_and_gives(model, "2", pictures(4))
    torch.testing.assert_close(given, F.relu(model[0](pictures(4))))
    with torch.inference_mode():
        torch.testing.assert_close(output, model[2](given))
