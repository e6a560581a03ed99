"""Properties that every registered criterion has, and the oracles of each."""

import pytest
import torch
from torch import nn

from ice_ray.errors import UserError
from ice_ray.pruning.criteria import CRITERIA, ScoringContext, criterion_named, lowest
from ice_ray.pruning.units import PrunableUnit

UNIT = PrunableUnit("0", 6, ("1",))


def model() -> nn.Module:
    """Six filters of growing norm."""
    conv = nn.Conv2d(3, 6, 3)
    with torch.no_grad():
        conv.weight.copy_(torch.arange(1.0, 7.0).view(6, 1, 1, 1) * (-1) ** torch.arange(6).view(6, 1, 1, 1))
    return nn.Sequential(conv, nn.Conv2d(6, 2, 1)).eval()


def context(*key) -> ScoringContext:
    return ScoringContext(model(), UNIT, key or (0, "step", 1))


@pytest.mark.parametrize("name", CRITERIA)
class TestConformance:
    def test_one_finite_score_per_filter_on_the_cpu(self, name):
        scores = criterion_named(name).score(context())
        assert scores.shape == (6,)
        assert scores.device.type == "cpu"
        assert scores.isfinite().all()

    def test_same_context_same_scores(self, name):
        first = criterion_named(name).score(context())
        torch.randn(100)
        assert torch.equal(first, criterion_named(name).score(context()))

    def test_the_model_is_left_as_it_was(self, name):
        own = context()
        before = {key: value.clone() for key, value in own.model.state_dict().items()}
        criterion_named(name).score(own)
        assert all(torch.equal(before[key], value) for key, value in own.model.state_dict().items())

    def test_frozen_layers_are_scored_alike(self, name):
        own = context()
        free = criterion_named(name).score(own)
        own.model.requires_grad_(False)
        assert torch.equal(free, criterion_named(name).score(own))


def test_l1_is_the_sum_of_absolute_weights():
    assert criterion_named("l1").score(context()).tolist() == [27.0 * factor for factor in range(1, 7)]


def test_random_is_a_permutation_that_depends_on_the_step():
    first = criterion_named("random").score(context(0, "step", 1))
    second = criterion_named("random").score(context(0, "step", 2))
    assert sorted(first.tolist()) == list(range(6))
    assert not torch.equal(first, second)


def test_the_lowest_go_and_ties_go_by_depth():
    assert lowest(torch.tensor([3.0, 1.0, 2.0, 1.0]), 2) == (1, 3)
    assert lowest(torch.ones(5), 3) == (0, 1, 2)


def test_an_unknown_criterion_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="nearest: l1"):
        criterion_named("l1x")
