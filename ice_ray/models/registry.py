"""From a model's name to the dense module: ours, a library's, or the user's own."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from ice_ray.errors import UserError, nearest
from ice_ray.extensions import check_takes, load_own, meant_as_own
from ice_ray.guard import guarded
from ice_ray.models.asking import copied_to_cpu
from ice_ray.models.cifar import CifarMobileNetV2, CifarResNet
from ice_ray.models.kinds import float_module, plain_module
from ice_ray.randomness import seed_of


def _torchvision(name: str, num_classes: int) -> nn.Module:
    models = importlib.import_module("torchvision").models  # only now: it takes a while to load
    names = models.list_models(module=models)
    if name not in names:
        raise UserError(f"torchvision has no classifier '{name}' ({_nearest(name, names)})")
    # These two have auxiliary classifiers, with which they return more than logits in training.
    extra = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    module: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **extra)
    return module


def _timm(name: str, num_classes: int) -> nn.Module:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise UserError(f"model 'timm:{name}' needs the extra: pip install 'ice_ray[timm]'") from error
    # Only names of the package itself: timm would fetch "hf-hub:..." from a hub.
    if name not in timm.list_models():
        raise UserError(f"timm has no model '{name}' ({_nearest(name, timm.list_models())})")
    module: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    return module


LIBRARIES: dict[str, Callable[[str, int], nn.Module]] = {"torchvision": _torchvision, "timm": _timm}


def library_of(name: str) -> str | None:
    """The library that `LIBRARY:NAME` names, if it is one of those known."""
    library = name.partition(":")[0]
    return library if ":" in name and library in LIBRARIES else None


def _nearest(name: str, names: list[str]) -> str:
    """The nearest names only: libraries have hundreds."""
    return nearest(name, names).split("; valid")[0] if "nearest" in nearest(name, names) else f"{len(names)} names"


_BUILDER = "a model's function or class takes num_classes or nothing, and gives a torch.nn.Module"
CIFAR_RESNET_DEPTHS = (8, 14, 20, 32, 44, 56, 110, 152)


def _cifar_resnet(depth: int) -> Callable[[int], nn.Module]:
    return lambda num_classes: CifarResNet(depth, num_classes)


BUILDERS: dict[str, Callable[[int], nn.Module]] = {
    "cifar-mobilenetv2": CifarMobileNetV2,
    **{f"cifar-resnet{depth}": _cifar_resnet(depth) for depth in CIFAR_RESNET_DEPTHS},
}


@dataclass(frozen=True)
class ModelSpec:
    """All that is needed to build a dense model anywhere: its name and the number of classes, or the module itself.

    Attributes:
        given: a module that was given as an object: its copies are what is built, and `name` is for records.
    """

    name: str
    num_classes: int
    given: nn.Module | None = field(default=None, compare=False, repr=False)

    def build(self) -> nn.Module:
        """The dense module in float32 on the CPU, its initial weights a function of the name alone; those of a module
        that was given are its own.

        Raises:
            UserError: no such model, or the user's function does not give a module.
        """
        if self.given is not None:
            return copied_to_cpu(plain_module(self.given), f"model '{self.name}'")
        builder = self._builder()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of("initial weights", self.name))
            with guarded(self.name, "model"):
                module = builder(self.num_classes)
        if not isinstance(module, nn.Module):
            raise UserError(f"model '{self.name}' returned {type(module).__name__}, not a torch.nn.Module")
        return float_module(module, f"model '{self.name}'")

    @property
    def is_users_own(self) -> bool:
        """Whether it is the user's: a module, or named as their `package.module:function`. Weights may come with it."""
        return self.given is not None or (":" in self.name and library_of(self.name) is None)

    @property
    def is_known(self) -> bool:
        """Whether the name alone, without code of the user's, is enough to build it."""
        return self.given is None and (self.name in BUILDERS or library_of(self.name) is not None)

    def _builder(self) -> Callable[[int], nn.Module]:
        library = library_of(self.name)
        if library is not None:
            name = self.name.partition(":")[2]
            return lambda num_classes: LIBRARIES[library](name, num_classes)
        if self.is_users_own:
            return _user_builder(self.name)
        if self.name not in BUILDERS:
            raise UserError(
                f"unknown model '{self.name}' ({nearest(self.name, sorted(BUILDERS))}; or torchvision:NAME, timm:NAME,"
                f" package.module:function{meant_as_own(self.name)})"
            )
        return BUILDERS[self.name]


def name_of(module: nn.Module) -> str:
    """What records call a module that was given as an object: where its class is defined, and its name.

    >>> name_of(nn.Linear(1, 1))
    'torch.nn.modules.linear:Linear'
    """
    kind = type(plain_module(module))
    return f"{kind.__module__}:{kind.__name__}"


def _user_builder(name: str) -> Callable[[int], nn.Module]:
    function = load_own(name, "model")
    check_builder(function, name, "model")
    return lambda num_classes: call_builder(function, num_classes)


def check_builder(function: Callable[..., nn.Module], name: str, what: str) -> None:
    """See, without calling it, that a user's function can build a model.

    Raises:
        UserError: it is a class of something else, or takes what nobody gives it.
    """
    if inspect.isclass(function) and not issubclass(function, nn.Module):
        raise UserError(f"{what} '{name}' is a class, not a torch.nn.Module; {_BUILDER}")
    takes_classes = "num_classes" in getattr(_signature(function), "parameters", {})
    check_takes(function, name, what, () if not takes_classes else {"num_classes": 0}, _BUILDER)


def _signature(function: Callable[..., nn.Module]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # of some functions written in C
        return None


def call_builder(function: Callable[..., nn.Module], num_classes: int) -> nn.Module:
    """A user's function called with the number of classes if it takes `num_classes`, else with nothing."""
    takes_classes = "num_classes" in getattr(_signature(function), "parameters", {})
    return function(num_classes=num_classes) if takes_classes else function()
