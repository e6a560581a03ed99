"""Modules that are no plain ones: taken out of what wraps them, or refused with the call that mends them."""

import copy
import re
import threading

import pytest
import torch
from ice_runs import PAPER
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import ice_ray
from ice_ray.data.images import PruningData
from ice_ray.errors import UserError
from ice_ray.models.kinds import plain_module

HYPERPARAMETERS = ice_ray.IceHyperparameters(1.0, 0.3, 0.02, 5e-3, 0.15, 50)
OPTIONS = PAPER | {"batch_size": 64}


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
    ).eval()


def pruned(model, data: PruningData):
    return ice_ray.prune(model, data, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="cpu", **OPTIONS).model


def changed(change) -> nn.Module:
    model = chain()
    change(model)
    return model


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return chain()


def with_nan(model) -> None:
    model[0].weight.data[0] = float("nan")


def quantised() -> nn.Module:
    from torch.ao.nn.quantized import Linear

    return nn.Sequential(nn.Conv2d(3, 8, 8), nn.Flatten(), Linear(8, 10))


class Holding(nn.Module):
    """Has what is there but once."""

    def __init__(self) -> None:
        super().__init__()
        self.body = chain()
        self.lock = threading.Lock()

    def forward(self, images):
        return self.body(images)


class Twice(nn.Module):
    """Compiled inside."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.compile(chain())

    def forward(self, images):
        return self.body(images)


REFUSED = {
    "weight_norm": (lambda: changed(lambda m: weight_norm(m[2])), "layer '2' has weight_norm.*remove_weight_norm("),
    "spectral_norm": (lambda: changed(lambda m: spectral_norm(m[2])), "remove_spectral_norm(model.get_submodule('2'))"),
    "parametrized": (
        lambda: changed(lambda m: parametrizations.weight_norm(m[0])),
        "layer '0' has a parametrized weight.*remove_parametrizations(model.get_submodule('0'), 'weight')",
    ),
    "masked": (
        lambda: changed(lambda m: prune.l1_unstructured(m[2], "weight", 0.5)),
        "weight_orig, weight_mask.*torch.nn.utils.prune.remove(model.get_submodule('2'), 'weight')",
    ),
    "lazy": (lazy, "layer '0' holds weight, which has no values yet (a lazy layer): run one batch"),
    "scripted": (lambda: torch.jit.script(chain()), "is a ScriptModule"),
    "traced": (lambda: torch.jit.trace(chain(), torch.ones(1, 3, 8, 8)), "is a ScriptModule"),
    "quantised": (quantised, "layer '2' is quantized (Linear): give the float model"),
    "compiled inside": (Twice, "layer 'body' is compiled by itself"),
    "meta": (on_meta, "is on the meta device and has no values"),
    "complex": (lambda: changed(lambda m: m[5].to(torch.complex64)), "is complex"),
    "a class": (lambda: nn.Sequential, "the model is the class Sequential, not a torch.nn.Module"),
    "a state dict": (lambda: chain().state_dict(), "weights alone are no model"),
    "a name": (lambda: "resnet18", "of type str, not a torch.nn.Module"),
    "nothing": (lambda: nn.Sequential(nn.Flatten(), nn.ReLU()), "it has no parameters"),
    "NaN": (lambda: changed(with_nan), "holds NaN or infinity in 0.weight"),
    "NaN in statistics": (
        lambda: changed(lambda m: m.insert(1, nn.BatchNorm2d(8)) and m[1].running_var.fill_(torch.nan)),
        "holds NaN or infinity in 1.running_var",
    ),
    "overflow": (
        lambda: changed(lambda m: [each.data.mul_(1e30) for each in m.parameters()]),
        "gives NaN or infinity for images of noise in eval mode",
    ),
    "a lock": (Holding, "cannot be copied (copy.deepcopy raises TypeError"),
}  # fmt: skip


@pytest.mark.parametrize(("made", "said"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_it_is_said_which_and_what_mends_it(made, said, data: PruningData):
    pattern = ".*".join(map(re.escape, said.split(".*")))
    with pytest.raises(UserError, match=pattern) as refused:
        pruned(made(), data)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda m: nn.DataParallel(torch.compile(m))])
def test_what_wraps_a_model_is_taken_off(wrap, data: PruningData):
    found, expected = pruned(wrap(chain()), data).state_dict(), pruned(chain(), data).state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_mends_mend(data: PruningData):
    masked = changed(lambda m: prune.l1_unstructured(m[2], "weight", 0.5))
    prune.remove(masked.get_submodule("2"), "weight")
    normed = changed(lambda m: parametrizations.weight_norm(m[0]))
    torch.nn.utils.parametrize.remove_parametrizations(normed.get_submodule("0"), "weight")
    filled = lazy()
    filled(torch.zeros(1, 3, 8, 8))
    for model in (masked, normed, filled):
        assert plain_module(copy.deepcopy(model)) is not None
        assert pruned(model.eval(), data)(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


def test_half_precision_is_made_whole(data: PruningData):
    assert pruned(chain().half(), data)[0].weight.dtype == torch.float32
