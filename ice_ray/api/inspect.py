"""What can be pruned in a model, before anything is trained."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from ice_ray.api.arguments import device_of, found_for, image_shape_of, rungs_of, whole
from ice_ray.api.data import given_data
from ice_ray.data.images import Preprocessing
from ice_ray.engine.config import parse_rung
from ice_ray.engine.opening import open_module
from ice_ray.errors import UserError
from ice_ray.models.frozen import describe_frozen
from ice_ray.models.kinds import plain_module
from ice_ray.observe.anatomy import Inspection
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.config import LayerwisePruneConfig
from ice_ray.torch_defaults import usual_defaults
from ice_ray.training.config import PrecisionChoice
from ice_ray.training.precision import resolve

_USUAL_RATIO = 0.5


@usual_defaults()  # a frame more for warnings
def inspect(
    model: nn.Module,
    image_shape: Sequence[int],
    *,
    ratio: float | None = None,
    target: str | None = None,
    prune: LayerwisePruneConfig | None = None,
    images: Any = None,
    preprocessing: Preprocessing | None = None,
    seed: int = 0,
    precision: PrecisionChoice = "auto",
    device: str | int | None = None,
) -> Inspection:
    """Which layers of a model can be pruned, what their removal comes to, and why the others cannot, as
    `jobs/ice_inspect.py` tells it. Nothing is trained, and `model` is left as it is. With training images and a target
    it shows the widths that `prune` would keep, and what they are expected to cost; without, one ratio for all layers.

    Removal is tried on copies of the model, which takes seconds, of large models minutes.

    Args:
        model: takes float32 images (N, C, H, W), gives logits (N, classes).
        image_shape: (C, H, W) of its images, in pixels.
        ratio: share of each layer's filters to remove, inside (0, 1). [default: 0.5]
        target: in its place, what to keep of the dense model: "macs=0.5", "params=0.4", "latency=0.6" (PyTorch's) or
            "onnx-latency=0.6" (ONNX Runtime's, on one thread).
        prune: which layers, and how far: `LayerwisePruneConfig(exclude=("head.*",), round_to=8)`.
        images: training images, in any form that `given_data` takes, a few hundred of which share out a target; labels
            are not looked at.
        preprocessing: of uint8 images, as for `prune`.
        seed: which of the images are looked at, as for `prune`.
        precision: of the arithmetic with which PyTorch's latency is measured.
        device: where it is measured; a GPU where there is one.

    Raises:
        UserError: an argument that is none, by its name; a ratio that would empty a layer, a target out of reach, or a
            model that takes no such images, gives no logits, or of which nothing may be pruned.

    >>> from torch import nn
    >>> import ice_ray
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.features = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
    ...         self.head = nn.Linear(16, 2)
    ...     def forward(self, images):
    ...         return self.head(self.features(images).mean((2, 3)))
    >>> inspection = ice_ray.inspect(Net(), image_shape=(1, 28, 20), ratio=0.25)
    >>> [(unit.layer, unit.filters, unit.kept) for unit in inspection.units]
    [('features.0', 16, 12), ('features.2', 16, 12)]
    >>> inspection
    Inspection(Net: 2 layers to prune, ratio 0.25, parameters 2,514 to 1,454, multiply-adds 952,160 to 548,232)
    """
    wanted, shape, chosen = rungs_of(target, ratio), image_shape_of(image_shape), device_of(device)
    if target is not None:
        parse_rung(target, "inspect")
    own = LayerwisePruneConfig() if prune is None else prune
    if not isinstance(own, LayerwisePruneConfig):
        raise UserError(f"prune must be a LayerwisePruneConfig, not {type(own).__name__}")
    opening = open_module(model, shape, own.selection)
    network = opening.network
    notes = [describe_frozen(network.frozen, network.all_frozen)] if network.frozen else []
    for note in [opening.note, *notes]:
        if note is not None:
            warnings.warn(note, stacklevel=3)
    amounts = Amounts(_USUAL_RATIO if ratio is None else ratio, own.by_layer, own.round_to)
    found = None
    if wanted is not None:
        given = None
        if images is not None:
            data = given_data(images, images, preprocessing=preprocessing)
            if data.train.image_shape != shape:
                raise UserError(f"images are {data.train.image_shape}, image_shape says {shape}")
            given = data, whole("seed", seed)
        found = found_for(wanted, network, amounts, chosen, resolve(precision, chosen), given)
        amounts = found.on(amounts)
    elif images is not None:
        raise UserError("images share out a target: give one, or leave them out")
    return Inspection.of(network, amounts, type(plain_module(model)).__name__, found)
