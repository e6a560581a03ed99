"""Networks that keep something of their passes: features, losses, tables made of their weights."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from ice_ray import IceHyperparameters, ImageSet, PruningData, prune
from ice_ray.artifact import load_pruned, save_pruned
from ice_ray.engine.opening import open_module
from ice_ray.errors import UserError
from ice_ray.models.copies import copied, fill, leaving_nothing
from ice_ray.models.registry import ModelSpec

SHAPE = (3, 8, 8)


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def features(self, images):
        return self.second(self.first(images)).mean((2, 3))

    def forward(self, images):
        return self.head(self.features(images))


class Keeping(Chain):
    """Keeps its features, as for a picture of them, and a loss."""

    def forward(self, images):
        self.kept = self.features(images)
        self.loss = self.kept.square().mean()
        return self.head(self.kept)


class Collecting(Chain):
    """Keeps them in a list and by name, of a part too."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.named = [], {}
        self.first.register_forward_hook(lambda module, given, maps: module.__dict__.update(maps=maps))

    def forward(self, images):
        self.seen.append(features := self.features(images))
        self.named["features"] = features
        return self.head(features)


class Cached(Chain):
    """Works a table out of its weights once, and anew in training."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.worked_out = nn.Parameter(torch.randn(3)), None

    def forward(self, images):
        if self.training or self.worked_out is None:
            self.worked_out = self.table[torch.tensor([0, 1, 2, 0, 1])]
        return super().forward(images) + self.worked_out


class CachedByMode(Cached):
    """Does so where it is put into eval mode, as TinyViT does."""

    @torch.no_grad()
    def train(self, mode=True):
        super().train(mode)
        self.worked_out = None if mode else self.table[torch.tensor([0, 1, 2, 0, 1])]
        return self


class CachedByPlace(Cached):
    """Keeps it by device until it is trained again, as LeViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.by_place = {}

    def train(self, mode=True):
        super().train(mode)
        if mode:
            self.by_place = {}
        return self

    def forward(self, images):
        biases = self.table[torch.tensor([0, 1, 2, 0, 1])]
        if not self.training:
            biases = self.by_place.setdefault(str(images.device), biases)
        return Chain.forward(self, images) + biases


KINDS = [Keeping, Collecting, Cached, CachedByMode, CachedByPlace]


@pytest.mark.parametrize("has_run", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_they_are_pruned(kind, has_run):
    model = kind()
    if has_run:
        model(torch.rand(2, *SHAPE))
    pixels = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3), dtype=np.uint8)
    images = ImageSet.from_numpy(pixels, np.arange(48) % 5)
    result = prune(
        model, PruningData(images, images), ratio=0.5, hyperparameters=IceHyperparameters(0, 0.3, 1e-3, 6e-4, 0.1, 50)
    )
    assert [record.filters_removed for record in result.records] == [4, 4]
    assert torch.equal(copied(result.model)(torch.ones(2, *SHAPE)), result.model(torch.ones(2, *SHAPE)))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_loaded_answers_by_its_own_weights(kind, tmp_path):
    network = open_module(kind(), SHAPE).network
    widths = {unit.layer: 5 for unit in network.units}
    pruned = network.build_pruned(widths, torch.device("cpu"))
    trained = copied(pruned)
    fill(
        trained, {name: each + 0.1 if each.is_floating_point() else each for name, each in pruned.state_dict().items()}
    )
    save_pruned(tmp_path, ModelSpec("mine:network", 5), SHAPE, widths, trained.state_dict(), {}, (), network.layout)
    images = torch.rand(2, *SHAPE)
    loaded = load_pruned(tmp_path, builder=kind)
    with torch.no_grad():
        assert torch.equal(loaded(images), loaded.train().eval()(images))
        assert torch.equal(loaded(images), trained.train().eval()(images))


def test_a_copy_has_the_values_and_no_history():
    model = Keeping()
    model(torch.rand(2, *SHAPE))
    with pytest.raises(RuntimeError):
        copy.deepcopy(model)
    own = copied(model)
    assert torch.equal(own.kept, model.kept) and own.kept.is_leaf and not model.kept.is_leaf
    assert all(each.requires_grad for each in own.parameters())


def test_a_look_leaves_nothing():
    model = Collecting()
    model(torch.rand(2, *SHAPE))
    seen, maps = list(model.seen), model.first.maps
    with leaving_nothing(model):
        model(torch.rand(2, *SHAPE))
        model.new = 1
        del model.first.maps
    assert model.seen == seen and model.first.maps is maps and not hasattr(model, "new")


def test_chance_in_eval_mode_is_named():
    class Chancy(Chain):
        def forward(self, images):
            return nn.functional.dropout(super().forward(images), 0.5)

    with pytest.raises(UserError, match="other logits for the same images each time in eval mode"):
        open_module(Chancy(), SHAPE)


def test_what_stops_removal_is_named_rather_than_the_head():
    class Counting(Chain):
        def features(self, images):
            maps = self.first(images)
            assert maps.shape[1] == 8 and self.second(maps).shape[1] == 8
            return super().features(images)

    with pytest.raises(UserError, match=r"for example first\.0: removing its filters breaks the network"):
        open_module(Counting(), SHAPE)
