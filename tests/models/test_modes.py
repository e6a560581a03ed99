"""Networks that return more than logits, or other things in training than when they are measured."""

from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from ice_runs import PAPER
from torch import nn

from ice_ray import IceHyperparameters, ImageSet, PruningData, prune
from ice_ray.engine.network import DenseNetwork
from ice_ray.errors import UserError
from ice_ray.models.asking import check_answers

HYPERPARAMETERS = IceHyperparameters(1.0, 0.3, 0.02, 5e-3, 0.15, 50)
OPTIONS = PAPER | {"batch_size": 64}
SHAPE = (3, 8, 8)


class TwoHeads(nn.Module):
    """A chain of two convolutions with a head behind each."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head, self.auxiliary = nn.Linear(8, 10), nn.Linear(8, 10)

    def both(self, images):
        maps = self.first(images)
        deep = self.second(maps)
        return self.head(deep.mean((2, 3))), self.auxiliary(maps.mean((2, 3)))

    def alone(self, images):
        return self.head(self.second(self.first(images)).mean((2, 3)))

    def forward(self, images):
        return self.both(images) if self.training else self.alone(images)


@dataclass
class Output:
    features: torch.Tensor
    logits: torch.Tensor


class Record(OrderedDict):
    """As Hugging Face has them: a dictionary with attributes."""

    @property
    def logits(self):
        return self["logits"]


class NamedInTraining(TwoHeads):
    def forward(self, images):
        logits, other = self.both(images)
        return Output(other, logits) if self.training else logits


class RecordAlways(TwoHeads):
    def forward(self, images):
        logits, other = self.both(images)
        return Record(loss=None, other=other, logits=logits)


class DictAlways(TwoHeads):
    def forward(self, images):
        logits, other = self.both(images)
        return {"aux": other, "out": logits}


class TupleAlways(TwoHeads):
    def forward(self, images):
        return self.both(images)


KINDS = [TwoHeads, NamedInTraining, RecordAlways, DictAlways, TupleAlways]


class SingleProcess(TwoHeads):
    """What all of these must come to: the logits alone."""

    def forward(self, images):
        return self.both(images)[0] if self.training else self.alone(images)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("criterion", ["l1", "taylor"])
def test_the_logits_alone_are_trained_and_measured(kind, criterion, data: PruningData):
    options = OPTIONS | {"criterion": criterion, "calibration_images": 100}
    results = []
    for each in (kind, SingleProcess):
        torch.manual_seed(0)
        results.append(prune(each().eval(), data, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="cpu", **options))
    found, expected = (result.model.state_dict() for result in results)
    used = [name for name in found if "auxiliary" not in name]
    if kind in (TwoHeads, NamedInTraining):
        assert all(torch.equal(found[name], expected[name]) for name in used)
        assert results[0].accuracy == results[1].accuracy
    assert len(results[0].records) >= 1
    assert results[0].model.train()(torch.rand(2, *SHAPE)) is not None


def test_what_only_training_reads_stays_whole():
    network, selection = DenseNetwork.verified(TwoHeads(), SHAPE)
    assert [unit.layer for unit in network.units] == ["second.0"]
    assert "in training alone" in network.refused["first.0"]
    assert set(network.unused) == {"auxiliary.weight", "auxiliary.bias"}
    assert dict(selection.faulty).keys() == {"first.0"}


class Unclear(TwoHeads):
    def forward(self, images):
        logits, other = self.both(images)
        return {"a": logits, "b": other} if self.training else logits


class FeaturesFirst(TwoHeads):
    def forward(self, images):
        return torch.cat([images.flatten(1)] * 2, dim=1), self.alone(images)


class Losses(TwoHeads):
    def forward(self, images, targets=None):
        if self.training:
            return nn.functional.cross_entropy(self.alone(images), targets)
        return self.alone(images)


class Loss(TwoHeads):
    def forward(self, images):
        return self.alone(images).sum() if self.training else self.alone(images)


class Detached(TwoHeads):
    def forward(self, images):
        return self.alone(images).detach()


class Classes(TwoHeads):
    def forward(self, images):
        return self.alone(images).argmax(1, keepdim=True).expand(-1, 10)


class Maps(TwoHeads):
    def forward(self, images):
        return self.second(self.first(images))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Unclear, r"returns a dict \(a: a tensor \(2, 10\), b: a tensor \(2, 10\)\) in training, .* logits"),
        (FeaturesFirst, r"returns a tuple \(a tensor \(2, 384\), a tensor \(2, 10\)\) in eval mode, .*have it first"),
        (Losses, r"raises TypeError: .*target.* in training"),
        (Loss, r"gives a tensor \(\) for two images in training"),
        (Detached, "cannot be trained"),
        (Classes, r"numbers of type torch\.int64 in eval mode, not logits"),
        (Maps, r"gives a tensor \(2, 8, 8, 8\) for two images in eval mode"),
    ],
)
def test_what_has_no_clear_logits_is_refused_in_one_line(kind, said, data: PruningData):
    with pytest.raises(UserError, match=said) as refused:
        prune(kind(), data, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="cpu", **OPTIONS)
    assert len(str(refused.value).splitlines()) == 1


def test_too_few_logits_and_images_of_another_kind_are_named(data: PruningData):
    few = TwoHeads()
    few.head = nn.Linear(8, 7)
    with pytest.raises(UserError, match="gives logits of 7 classes in eval mode; the data needs logits of 10"):
        prune(few, data, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="cpu", **OPTIONS)
    grey = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 10))
    with pytest.raises(UserError, match="takes images of 1 channel, not of 3"):
        prune(grey, data, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="cpu", **OPTIONS)
    larger = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 30 * 30, 10))
    with pytest.raises(UserError, match="does not take an image of 8x8 pixels: it takes 32x32"):
        prune(larger, data, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="cpu", **OPTIONS)
    deep = nn.Sequential(nn.Conv2d(3, 8, 15), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    with pytest.raises(UserError, match="does not take an image of 8x8 pixels: it needs at least 16x16"):
        prune(deep, data, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="cpu", **OPTIONS)


class Broken(TwoHeads):
    def forward(self, images):
        raise KeyError("no such thing")


def test_what_a_network_raises_is_said_and_where(data: PruningData):
    with pytest.raises(UserError, match=r"raises KeyError: 'no such thing', test_modes\.py:\d+ in forward"):
        prune(Broken(), data, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="cpu", **OPTIONS)


def test_data_that_do_not_go_together_are_refused(data: PruningData):
    def of(count: int, size: int = 8, label: int = 3) -> ImageSet:
        return ImageSet(torch.zeros(count, size, size, 3, dtype=torch.uint8), torch.full((count,), label))

    for train, validation, said in [
        (of(0), of(5), r"data\.train holds 0 images"),
        (of(5), of(0), r"data\.validation holds 0 images"),
        (of(5), of(5, size=16), r"images of data\.validation are \(3, 16, 16\)"),
        (of(5, label=-1), of(5), r"data\.train has the label -1"),
    ]:
        with pytest.raises(UserError, match=said):
            prune(
                TwoHeads(),
                PruningData(train, validation),
                ratio=0.5,
                hyperparameters=HYPERPARAMETERS,
                device="cpu",
                **OPTIONS,
            )
    with pytest.raises(UserError, match="val: no validation images"):
        prune(
            TwoHeads(),
            [data.train, data.validation],
            ratio=0.5,
            hyperparameters=HYPERPARAMETERS,
            device="cpu",
            **OPTIONS,
        )  # type: ignore[arg-type]
    with pytest.raises(UserError, match="hyperparameters of pipeline ice must be IceHyperparameters, not dict"):
        prune(TwoHeads(), data, ratio=0.5, hyperparameters=HYPERPARAMETERS.as_dict(), device="cpu", **OPTIONS)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="device='gpu' is none"):
        prune(TwoHeads(), data, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="gpu", **OPTIONS)
    with pytest.raises(UserError, match="precision 'fp64' is none of"):
        prune(TwoHeads(), data, ratio=0.5, hyperparameters=HYPERPARAMETERS, precision="fp64", device="cpu", **OPTIONS)  # type: ignore[arg-type]


class Attentive(nn.Module):
    """Every place with every other: 512x512 pixels would take half a terabyte."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4 * side**2, 10)

    def forward(self, images):
        tokens = self.conv(images).flatten(2)
        return self.head(((tokens.transpose(1, 2) @ tokens).softmax(2) @ tokens.transpose(1, 2)).flatten(1))


@pytest.mark.parametrize(("side", "said"), [(384, "it takes 384x384"), (7, "raises RuntimeError: .*mat1 and mat2")])
def test_what_a_failing_network_takes_is_found_without_running_it_on_large_images(side, said):
    ran = []
    model = Attentive(side)
    handle = nn.modules.module.register_module_forward_pre_hook(
        lambda module, given: ran.append(given[0].shape[-1]) if given[0].is_cpu and given[0].ndim == 4 else None
    )
    with pytest.raises(UserError, match=said):
        check_answers(model, SHAPE, None, "the model")
    handle.remove()
    assert ran and max(ran) <= 64
