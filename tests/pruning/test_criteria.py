"""Properties that every registered criterion has, and the oracles of each."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from repairing import Calibration, live_bytes, repair_context, scoring
from torch import nn

from ice_ray.distributed import SingleProcess
from ice_ray.errors import UserError
from ice_ray.models.units import PrunableUnit
from ice_ray.pruning.criteria import CRITERIA, Criterion, ScoringContext, check_criterion, criterion_named
from ice_ray.pruning.selection import lowest

UNIT = PrunableUnit("conv", 6, ("reader",))
STREAMING = ["entropy", "entropy-densities", "mean-activation", "taylor"]
LOOKING = [*STREAMING, "residual"]


class Ranked(nn.Module):
    """Filter i looks at channel i alone; its weights, its batch norm and what it makes of the images grow with i."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(6, 6, 1, bias=False), nn.BatchNorm2d(6, eps=0)
        self.reader = nn.Conv2d(6, 2, 1)
        with torch.no_grad():
            growing = torch.arange(1.0, 7.0)
            self.conv.weight.copy_(torch.diag(growing)[:, :, None, None])
            self.norm.weight.copy_(growing)
            self.reader.weight.copy_(torch.tensor([0.01, -0.01])[:, None, None, None].expand(2, 6, 1, 1))
            self.reader.bias.zero_()

    def forward(self, x):
        return self.reader(F.relu(self.norm(self.conv(x)))).mean((2, 3))


def pictures(count: int = 60) -> torch.Tensor:
    """Channel i takes i + 1 different values, each as often as the others."""
    values = [[(number % (channel + 1)) + 1.0 for channel in range(6)] for number in range(count)]
    return torch.tensor(values)[:, :, None, None].expand(count, 6, 4, 4).contiguous()


def context(*key, count: int = 60, batch: int = 16) -> ScoringContext:
    images, labels = pictures(count), torch.arange(count) % 2

    def batches():
        for start in range(0, count, batch):
            yield images[start : start + batch], labels[start : start + batch]

    return context_of(Ranked().eval(), batches, key=key or (0, "step", 1))


def context_of(model, batches, unit=UNIT, norms=None, key=(0, "step", 1)) -> ScoringContext:
    """Of a network from which nothing has been pruned yet."""
    norms = {"conv": "norm"} if norms is None else norms
    return ScoringContext(model, (unit,), norms, key, batches, SingleProcess(), lambda: model)


def scores_of(name: str, own: ScoringContext, layer: str = "conv") -> torch.Tensor:
    criterion = criterion_named(name)
    asked = criterion.problems(own.units)
    if asked:
        order = [*(unit.layer for unit in own.units), *asked]
        own = scoring(
            name, repair_context(own.model, own.dense(), own.units, own.norms, order, Calibration(own.batches))
        )
    return criterion.score(own)[layer]


@pytest.mark.parametrize("name", CRITERIA)
class TestConformance:
    def test_one_finite_score_per_filter(self, name):
        scores = scores_of(name, context())
        assert scores.shape == (6,)
        assert scores.isfinite().all()

    def test_same_context_same_scores(self, name):
        first = scores_of(name, context())
        torch.randn(100)
        assert torch.equal(first, scores_of(name, context()))

    def test_the_model_is_left_as_it_was(self, name):
        own = context()
        own.model.reader.requires_grad_(False)
        before = {key: value.clone() for key, value in own.model.state_dict().items()}
        scores_of(name, own)
        assert all(torch.equal(before[key], value) for key, value in own.model.state_dict().items())
        assert [parameter.requires_grad for parameter in own.model.parameters()] == [True, True, True, False, False]
        assert all(parameter.grad is None for parameter in own.model.parameters())
        assert not own.model.training
        assert not own.model.norm._forward_hooks

    def test_frozen_layers_are_scored_alike(self, name):
        own = context()
        free = scores_of(name, own)
        own.model.requires_grad_(False)
        assert torch.equal(free, scores_of(name, own))

    def test_a_layer_built_so_that_the_answer_is_known(self, name):
        """Every filter matters more than the one before it; random knows nothing, and densities weigh scale."""
        order = torch.argsort(scores_of(name, context()), stable=True).tolist()
        if name in ("random", "entropy-densities"):
            assert sorted(order) == list(range(6))
        else:
            assert order == list(range(6))

    def test_batches_of_another_size_give_the_same_order(self, name):
        whole, pieces = scores_of(name, context(batch=60)), scores_of(name, context(batch=7))
        torch.testing.assert_close(whole, pieces)

    def test_it_says_what_it_costs(self, name):
        criterion = criterion_named(name)
        assert (criterion.passes > 0) == (name in STREAMING)
        assert bool(criterion.problems([UNIT])) == (name == "residual")


def test_norms_by_hand():
    assert scores_of("l1", context()).tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    own = context()
    with torch.no_grad():
        own.model.conv.weight[0] = torch.tensor([3.0, -4.0, 0, 0, 0, 0])[:, None, None]
    assert scores_of("l1", own)[0] == 7
    assert scores_of("l2", own)[0] == 5
    with torch.no_grad():
        own.model.norm.weight[2] = -9
    assert scores_of("bn-scale", own).tolist() == [1, 2, 9, 4, 5, 6]


def test_mean_activation_by_hand():
    """Channel i has mean (i + 2) / 2, weight and gamma i + 1 each."""
    expected = [(i + 1) ** 2 * (i + 2) / 2 for i in range(6)]
    assert scores_of("mean-activation", context()).tolist() == pytest.approx(expected)


def test_taylor_by_autograd():
    """Oracle: the activations kept whole, torch's own gradient of every image's loss."""
    own = context()
    images, labels = pictures(), torch.arange(60) % 2
    maps = F.relu(own.model.norm(own.model.conv(images))).detach().requires_grad_()
    F.cross_entropy(own.model.reader(maps).mean((2, 3)), labels, reduction="sum").backward()
    expected = (maps * maps.grad).mean((2, 3)).abs().mean(0)
    torch.testing.assert_close(scores_of("taylor", own).float(), expected.detach())


def test_entropy_of_equally_frequent_values_is_the_logarithm_of_their_number():
    assert scores_of("entropy", context()).tolist() == pytest.approx([math.log(i + 1) for i in range(6)])


@pytest.mark.parametrize(("name", "density"), [("entropy", False), ("entropy-densities", True)])
def test_entropies_against_numpy_s_histogram(name, density):
    """Values on a coarse dyadic lattice, whose bins no fine bin straddles; one filter never fires."""
    random = np.random.default_rng(0)
    values = random.integers(0, 21, (500, 6)) * random.choice([0.25, 1.0, 8.0], 6)
    values[0], values[1] = 0, values.max(0)
    images = torch.tensor(values, dtype=torch.float32)[:, :, None, None]
    own = context()
    with torch.no_grad():
        own.model.conv.weight.copy_(torch.eye(6)[:, :, None, None])
        own.model.norm.weight.fill_(1)
        own.model.norm.weight[3] = 0

    def batches():
        for start in range(0, 500, 64):
            yield images[start : start + 64], torch.zeros(len(images[start : start + 64]), dtype=torch.int64)

    scored = scores_of(name, context_of(own.model, batches))
    for filter_, score in enumerate(scored.tolist()):
        seen = values[:, filter_] * (filter_ != 3)
        counts, edges = np.histogram(seen, bins=20)
        share = counts[counts > 0] / counts.sum()
        bins = share / (edges[1] - edges[0]) if density else share
        assert score == pytest.approx(-(bins * np.log(bins)).sum(), rel=0.03, abs=1e-6)


@pytest.mark.parametrize("name", LOOKING)
def test_memory_is_flat_in_the_number_of_images(name):
    """Live tensors, counted while the batches stream by: no more at the last than at the second."""

    def peak(count: int) -> int:
        seen = []
        own = context(count=1)

        def batches():
            for number in range(count):
                seen.append(live_bytes())
                yield pictures(8) + number, torch.zeros(8, dtype=torch.int64)

        scores_of(name, context_of(own.model, batches))
        return max(seen)

    assert peak(9) <= peak(3)


def test_hidden_units_of_a_linear_layer_are_scored_too():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.GELU(), nn.Linear(5, 3)).eval()
    unit = PrunableUnit("1", 5, ("3",))
    images, labels = torch.randn(32, 3, 2, 2), torch.arange(32) % 3
    own = context_of(model, lambda: iter([(images, labels)]), unit, {})
    for name in set(CRITERIA) - {"bn-scale"}:
        assert scores_of(name, own, "1").shape == (5,)
    expected = model[1](images.flatten(1)).relu().mean(0)
    torch.testing.assert_close(criterion_named("mean-activation").score(own)["1"].float(), expected)


class Repeated(nn.Module):
    """One convolution that is called twice, the second time on what came of the first, with an activation in place."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(3, 3, 1), nn.SiLU(inplace=inplace), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.act(self.conv(self.act(self.conv(x)))).mean((2, 3)))


@pytest.mark.parametrize("name", STREAMING)
def test_operations_in_place_and_repeated_calls_change_nothing(name):
    torch.manual_seed(0)
    images, labels = torch.randn(24, 3, 4, 4), torch.arange(24) % 2
    found = []
    for inplace in (False, True):
        torch.manual_seed(1)
        model = Repeated(inplace).eval()
        unit = PrunableUnit("conv", 3, ("head",))
        own = context_of(model, lambda: iter([(images, labels)]), unit, {})
        found.append(scores_of(name, own))
    torch.testing.assert_close(*found)
    if name == "mean-activation":
        first = model.conv(images)
        second = model.conv(F.silu(first.clone()))
        expected = (first.relu().mean((0, 2, 3)) + second.relu().mean((0, 2, 3))) / 2
        torch.testing.assert_close(found[0].float(), expected.detach())


def test_random_is_a_permutation_that_depends_on_the_step():
    first, second = scores_of("random", context(0, "step", 1)), scores_of("random", context(0, "step", 2))
    assert sorted(first.tolist()) == list(range(6))
    assert not torch.equal(first, second)


def test_the_lowest_go_and_ties_go_by_depth():
    assert lowest(torch.tensor([3.0, 1.0, 2.0, 1.0]), 2) == (1, 3)
    assert lowest(torch.ones(5), 3) == (0, 1, 2)


def test_groups_lose_the_same_places():
    """Two runs of three: sums of places are 9, 3, 6."""
    assert lowest(torch.tensor([1.0, 2.0, 3.0, 8.0, 1.0, 3.0]), 4, groups=2) == (1, 2, 4, 5)


def test_what_cannot_score_is_refused_before_anything_runs():
    model = Ranked()
    check_criterion("bn-scale", [UNIT], {"conv": "norm"}, model)
    with pytest.raises(UserError, match="no batch norm with a scale takes the output of conv"):
        check_criterion("bn-scale", [UNIT], {"conv": None}, model)
    model.norm = nn.BatchNorm2d(6, affine=False)
    with pytest.raises(UserError, match="no batch norm with a scale takes the output of conv"):
        check_criterion("bn-scale", [UNIT], {"conv": "norm"}, model)
    with pytest.raises(UserError, match="nearest: l1"):
        criterion_named("l1x")


def test_a_criterion_of_the_user_s_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_criteria.py").write_text(
        "from ice_ray.pruning.criteria import Criterion\n"
        "class Last(Criterion):\n"
        "    def score(self, context):\n"
        "        return {u.layer: -context.weight(u).abs().amax(1) for u in context.units}\n"
        "class Unexplained(Criterion):\n"
        "    def problems(self, units):\n"
        "        return [reader for u in units for reader in u.consumers]\n"
        "    def score(self, context):\n"
        "        (products, _, _) = context.problems['reader'].fitted.moments()\n"
        "        return {u.layer: products[0].diagonal() for u in context.units}\n"
        "def nothing(): return 3\n"
    )
    assert isinstance(criterion_named("own_criteria:Last"), Criterion)
    assert scores_of("own_criteria:Last", context()).tolist() == [-1, -2, -3, -4, -5, -6]
    spread = scores_of("own_criteria:Unexplained", context())  # what the reader reads of each filter
    assert torch.argsort(spread).tolist() == list(range(6))
    with pytest.raises(UserError, match="gives int, not an ice_ray Criterion"):
        criterion_named("own_criteria:nothing")
    with pytest.raises(UserError, match="importable"):
        criterion_named("own_criteria:missing")
