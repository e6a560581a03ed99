"""Models of other libraries by name, untrained: `torchvision:NAME` and `timm:NAME`. Nothing is downloaded."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from torch import nn

from ice_ray.errors import UserError, nearest


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
    """They have hundreds: the nearest only."""
    return nearest(name, names).split("; valid")[0] if "nearest" in nearest(name, names) else f"{len(names)} names"
