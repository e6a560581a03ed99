"""The steps of a reconstruction against torch's own Muon and Adam, and against singular values."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ice_ray.repair.relative_muon import RelativeMuon, orthogonal

SIDES = st.integers(1, 24)


@given(SIDES, SIDES, st.integers(0, 2**16), st.floats(1e-12, 1e12))
@settings(max_examples=60, deadline=None)
def test_singular_values_come_near_one_and_directions_stay(rows, columns, seed, scale):
    torch.manual_seed(seed)
    left, values, right = torch.linalg.svd(torch.randn(rows, columns, dtype=torch.float64), full_matrices=False)
    values = values.clamp(min=0.05 * values.max())  # what is next to nothing takes more iterations
    found = left.T @ orthogonal(scale * left @ torch.diag(values) @ right) @ right.T
    assert found.diagonal().min() > 0.6
    assert found.diagonal().max() < 1.25
    torch.testing.assert_close(found, torch.diag(found.diagonal()), atol=1e-6, rtol=0)


def test_nothing_is_made_of_nothing():
    assert not orthogonal(torch.zeros(3, 5)).any()


def gradients(*shape: int) -> list[torch.Tensor]:
    return [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]


@pytest.mark.parametrize("shape", [(8, 6), (6, 8, 3, 3)])
def test_a_matrix_goes_where_torch_s_muon_goes(shape):
    torch.manual_seed(0)
    start = torch.randn(shape)
    own, theirs = nn.Parameter(start.clone()), nn.Parameter(start.flatten(1).clone())
    ours = RelativeMuon([own], [own])
    muon = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0, momentum=0.9)
    for grad in gradients(*shape):
        own.grad, theirs.grad = grad, grad.flatten(1)
        before = own.detach().clone(), theirs.detach().clone()
        ours.step(0.02)
        muon.step()
        mine, other = (own - before[0]).detach().flatten(1), (theirs - before[1]).detach()
        torch.testing.assert_close(mine / mine.norm(), other / other.norm(), atol=0.02, rtol=0)  # theirs is in bf16
        assert float(mine.square().mean().sqrt()) == pytest.approx(0.02 * float(start.square().mean().sqrt()), rel=1e-4)


def test_all_else_goes_where_torch_s_adam_goes():
    start = torch.linspace(0.5, 1.5, 7)
    own, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours = RelativeMuon([own], [nn.Parameter(torch.ones(2, 2))])
    adam = torch.optim.Adam([theirs], lr=0.02 * math.sqrt(float(start.square().mean())))
    for grad in gradients(7):
        own.grad, theirs.grad = grad, grad
        ours.step(0.02)
        adam.step()
    torch.testing.assert_close(own, theirs)


def test_zeros_and_what_has_no_gradient_stay():
    zeros, still = nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.ones(3, 4))
    ours = RelativeMuon([zeros, still], [zeros, still])
    zeros.grad, still.grad = torch.ones(3, 4), torch.zeros(3, 4)
    ours.step(0.5)
    assert not zeros.any()
    assert torch.equal(still, torch.ones(3, 4))
