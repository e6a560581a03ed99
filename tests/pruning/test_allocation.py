"""Widths with the least loss under budgets: against brute force, and what holds of every allocation."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ice_ray.engine.network import DenseNetwork
from ice_ray.models.units import PrunableUnit
from ice_ray.pruning.allocation import Curve, allocate, allowed, least_loss
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.footprint import Footprint

CPU = torch.device("cpu")


@st.composite
def problems(draw):
    """Choices of a few options each, their costs in one or two quantities, and budgets."""
    quantities = draw(st.integers(1, 2))
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    losses = [np.array(draw(st.lists(st.integers(0, 20), min_size=n, max_size=n)), float) for n in sizes]
    values = st.integers(draw(st.sampled_from([0, -9])), 20)  # measured time may be less than the narrowest width's
    costs = [
        np.array(draw(st.lists(st.lists(values, min_size=quantities, max_size=quantities), min_size=n, max_size=n)))
        for n in sizes
    ]
    budgets = np.array(draw(st.lists(st.integers(0, 60), min_size=quantities, max_size=quantities)), float)
    return losses, [cost.astype(float) for cost in costs], budgets


@given(problems())
@settings(max_examples=300, deadline=None)
def test_the_dynamic_program_finds_what_brute_force_finds(problem):
    losses, costs, budgets = problem
    within = [
        choice
        for choice in itertools.product(*(range(len(each)) for each in losses))
        if (sum(cost[option] for cost, option in zip(costs, choice, strict=True)) <= budgets).all()
    ]
    found = least_loss(losses, costs, budgets)
    if not within:
        assert found is None
        return
    assert found in within

    def total(choice):
        return sum(loss[option] for loss, option in zip(losses, choice, strict=True))

    assert total(found) == min(map(total, within))


def test_of_many_options_too_a_budget_holds_and_little_is_lost():
    generator = np.random.default_rng(0)
    losses = [np.sort(generator.random(60))[::-1].copy() for _ in range(30)]
    costs = [np.sort(generator.random(60))[:, None] for _ in range(30)]
    budget = np.array([12.0])
    found = least_loss(losses, costs, budget)
    assert sum(cost[option, 0] for cost, option in zip(costs, found, strict=True)) <= budget[0]
    # A Lagrangian's value is a bound that no choice can be below.
    bounds = [
        sum(float((loss + price * cost[:, 0]).min()) for loss, cost in zip(losses, costs, strict=True)) - price * 12
        for price in np.linspace(0, 5, 501)
    ]
    assert sum(loss[option] for loss, option in zip(losses, found, strict=True)) <= 1.01 * max(bounds)


@given(st.integers(0, 2**32 - 1), st.floats(0, 6))
@settings(max_examples=20, deadline=None)
def test_time_that_does_not_fall_with_every_filter_keeps_to_its_budget_beside_another(seed, most):
    generator = np.random.default_rng(seed)
    losses = [np.sort(generator.random(20))[::-1].copy() for _ in range(8)]
    sizes = [np.sort(generator.random(20)) for _ in losses]
    costs = [np.column_stack([size, size + generator.normal(0, 0.2, 20)]) for size in sizes]
    costs = [cost - cost[0] for cost in costs]
    budgets = np.array([3.0, most])
    found = least_loss(losses, costs, budgets)
    assert (sum(cost[option] for cost, option in zip(costs, found, strict=True)) <= budgets + 1e-9).all()


class Chain(nn.Module):
    """Three convolutions in a row: what a width of one costs depends on those beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3, bias=False), nn.BatchNorm2d(12), nn.Conv2d(12, 6, 1)
        )
        self.head = nn.Linear(6, 3)

    def forward(self, images):
        return self.head(self.layers(images).mean((2, 3)))


@pytest.fixture(scope="module")
def chain() -> tuple[DenseNetwork, Footprint]:
    network = DenseNetwork(Chain(), (3, 9, 9))
    return network, Footprint(network.build(CPU), network.image_shape, network.traces, network.units)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_budget_is_exceeded_and_no_layer_could_be_wider(chain, data):
    network, footprint = chain
    curves = []
    for unit in network.units:
        steps = data.draw(st.lists(st.floats(0, 1), min_size=unit.filters, max_size=unit.filters))
        losses = np.cumsum([0.0, *steps[:-1]])
        curves.append(Curve(unit, {unit.filters - gone: float(loss) for gone, loss in enumerate(losses)}))
    quantities = data.draw(st.sampled_from([("macs",), ("params",), ("macs", "params")]))
    budgets = {quantity: data.draw(st.floats(0.05, 1)) for quantity in quantities}
    widths = allocate(curves, footprint, budgets)
    narrowest = {curve.unit.layer: 1 for curve in curves}
    if widths is None:
        assert any(footprint.share(quantity, narrowest) > budget for quantity, budget in budgets.items())
        return
    for quantity, budget in budgets.items():
        assert footprint.share(quantity, widths) <= budget + 1e-9
    for curve in curves:
        layer = curve.unit.layer
        if widths[layer] < curve.unit.filters:
            wider = widths | {layer: widths[layer] + 1}
            assert any(footprint.share(quantity, wider) > budget for quantity, budget in budgets.items())


def test_neighbours_that_both_shrink_are_allocated_as_brute_force_would(chain):
    network, footprint = chain
    curves = [
        Curve(unit, {k: weight * (1 - k / unit.filters) ** 2 for k in range(1, unit.filters + 1)})
        for unit, weight in zip(network.units, (1.0, 3.0, 0.5), strict=True)
    ]

    def loss(widths):
        return sum(curve.losses[widths[curve.unit.layer]] for curve in curves)

    every = itertools.product(*(curve.widths for curve in curves))
    named = ({curve.unit.layer: width for curve, width in zip(curves, each, strict=True)} for each in every)
    best = min((each for each in named if footprint.share("macs", each) <= 0.4), key=loss)
    assert loss(allocate(curves, footprint, {"macs": 0.4})) <= 1.05 * loss(best)


def test_widths_that_may_be_chosen():
    unit = PrunableUnit("layer", 24, ("reader",), groups=2)
    curve = Curve(unit, {width: float(24 - width) for width in range(2, 25, 2)})
    assert allowed(curve, Amounts(0.5)).widths == list(range(4, 25, 2))  # the eighth is three, which is no pair
    assert allowed(curve, Amounts(0.5), narrowest=True).widths == list(range(2, 25, 2))
    assert allowed(curve, Amounts(0.5, round_to=8)).widths == [8, 16, 24]
    assert allowed(curve, Amounts(0.5, by_layer=(("lay*", 0.25),))).widths == [18]
    assert allowed(curve, Amounts(0.5, by_layer=(("lay*", 0.0),))).widths == [24]
