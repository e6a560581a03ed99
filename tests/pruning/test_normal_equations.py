"""Least squares on sampled rows: never worse than the prior, and the rows are what the layers read."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from repairing import pictures
from torch import nn

from ice_ray.models.partial_forward import reads_and_gives
from ice_ray.repair.normal_equations import NormalEquations, Positions, input_rows, output_rows, positions_of


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


@pytest.mark.parametrize("inputs", [127, 128, 129, 200, 257])
def test_products_are_summed_over_rows_however_wide_a_layer_is(inputs):
    x, y = torch.randn(2, 40, inputs).double(), torch.randn(2, 40, 3).double()
    equations = NormalEquations(2, inputs, 3, False, torch.device("cpu"))
    for part, targets in zip(x.split(15, dim=1), y.split(15, dim=1), strict=True):
        equations.add(part, targets)
    products, crossed, _ = equations.moments()
    torch.testing.assert_close(products, x.mT @ x / 40)
    torch.testing.assert_close(crossed, x.mT @ y / 40)


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
    positions = Positions.drawn(2, positions_of(layer, output), 64, (0,), images.device)
    rows = input_rows(layer, images, output.shape[2:], positions)
    weight = layer.weight.flatten(1).unflatten(0, (groups, -1)).mT
    found = (rows @ weight).movedim(0, 1).flatten(1) + layer.bias
    torch.testing.assert_close(found, output_rows(layer, output, positions), atol=1e-4, rtol=1e-4)


def test_hidden_activations_are_what_the_rows_are_made_of():
    """A layer's input is caught as it stands, though what follows works in place."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1), nn.ReLU(inplace=True))
    given, output = reads_and_gives(model, "2", pictures(4))
    torch.testing.assert_close(given, F.relu(model[0](pictures(4))))
    with torch.inference_mode():
        torch.testing.assert_close(output, model[2](given))
