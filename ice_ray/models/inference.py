"""Networks for measuring: batch norms are folded into the layers before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ice_ray.models.answers import logits_of
from ice_ray.models.copies import copied, probe_of

_CLOSE = 1e-3


def folded(model: nn.Module, norms: Mapping[str, str]) -> nn.Module:
    """A copy in eval mode that computes the same with fewer passes over memory; not to be trained.

    Args:
        norms: batch norms to fold, by the layer whose output they take.
    """
    own = copied(model).eval().requires_grad_(False)
    for layer, norm in norms.items():
        before, after = own.get_submodule(layer), own.get_submodule(norm)
        assert isinstance(after, (nn.BatchNorm1d, nn.BatchNorm2d))
        if isinstance(before, nn.Linear):
            _replace(own, layer, fuse_linear_bn_eval(before, after))
        elif isinstance(before, nn.Conv2d):
            _replace(own, layer, fuse_conv_bn_eval(before, after))
        _replace(own, norm, nn.Identity())
    return own.requires_grad_(False)


def foldable_norms(
    model: nn.Module, norms: Mapping[str, str | None], image_shape: tuple[int, int, int]
) -> dict[str, str]:
    """The batch norms that `folded` may fold: each takes the output of one layer, which nothing else takes.

    None, where folding was tried and the network gave other answers (an output that is read twice).
    """
    uses = Counter(norms.values())
    found = {
        layer: norm
        for layer, norm in norms.items()
        if norm is not None and uses[norm] == 1 and _is_plain(model.get_submodule(norm))
    }
    probe, images = probe_of(model, image_shape)
    with torch.inference_mode():
        expected, answered = logits_of(probe(images)), logits_of(folded(probe, found)(images))
    largest = expected.abs().max()
    return found if bool(largest > 0) and bool((answered - expected).abs().max() <= _CLOSE * largest) else {}


def _is_plain(norm: nn.Module) -> bool:
    """A subclass may do more than normalise, and one without statistics normalises by the batch."""
    return type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d) and norm.running_mean is not None


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
