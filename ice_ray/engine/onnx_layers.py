"""What the layers of a network take in ONNX Runtime by their numbers of channels, each measured alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ice_ray.engine.config import BATCH
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.onnx_latency import session_of, thread_seconds
from ice_ray.models.exported import INPUT, OUTPUT
from ice_ray.models.units import PrunableUnit

_PASSES, _WARM_UP = 5, 2
_WORK = 2e8  # multiply-adds of a dense layer's pass: some milliseconds
_GRAIN, _FEW = 4, 8
"""More than a few channels are counted up to multiples of the grain: runtimes calculate several at once."""
_OPSET, _IR = 17, 8
_QUANTITY = "onnx-latency"


class PricedFootprint:
    """A network's footprint in which `onnx-latency` has a price too: the sum of what its layers take, each alone.

    What lies between the layers is left out, so it ranks widths and is no measurement of a network. A layer is measured
    with so many channels when it is first asked for, on one thread, and layers that are alike share it.

    Args:
        widths: by layer, those that are asked about.
    """

    def __init__(self, network: DenseNetwork, widths: Mapping[str, Sequence[int]]) -> None:
        self._footprint, self._widths = network.footprint, widths
        self._layers = _layers(network)
        self._dense = self._seconds({})

    def share(self, quantity: str, widths: Mapping[str, int]) -> float:
        """As `Footprint.share`."""
        if quantity != _QUANTITY:
            return self._footprint.share(quantity, widths)
        return self._seconds(widths) / self._dense

    def along(self, quantity: str, widths: Mapping[str, int], unit: PrunableUnit) -> npt.NDArray[np.float64]:
        """As `Footprint.along`; between widths that nobody asks about, a straight line."""
        if quantity != _QUANTITY:
            return self._footprint.along(quantity, widths, unit)
        asked = self._widths[unit.layer]
        shares = [self.share(quantity, {**widths, unit.layer: each}) for each in asked]
        return np.interp(np.arange(unit.filters + 1), asked, shares)

    def _seconds(self, widths: Mapping[str, int]) -> float:
        return sum(layer.seconds(*self._footprint.channels(layer.name, widths)) for layer in self._layers)


class _Layer:
    """A convolution, or a linear layer as one of a single pixel."""

    def __init__(self, name: str, module: nn.Module, pixels: Sequence[int], positions: int) -> None:
        self.name = name
        weight = module.get_parameter("weight")
        self._attributes: tuple[tuple[str, Any], ...] = ()
        self._kernel, self._groups, self._pixels = (1, 1), 1, tuple(pixels)
        if isinstance(module, nn.Conv2d):
            rows, columns = module.kernel_size
            pads = (rows // 2, columns // 2) if isinstance(module.padding, str) else module.padding
            self._attributes = (
                ("strides", tuple(module.stride)),
                ("pads", (*pads, *pads)),
                ("dilations", tuple(module.dilation)),
            )
            self._kernel = (rows, columns)
            is_depthwise = module.groups == module.in_channels > 1
            self._groups = 0 if is_depthwise else module.groups
        else:
            self._pixels = (positions, 1)
        self._batch = int(min(BATCH, max(1, _WORK // (weight.numel() * positions))))

    def seconds(self, outputs: int, inputs: int) -> float:
        """Of an image, with so many outputs, and inputs of each group."""
        outputs = outputs if self._groups > 1 else _up(outputs)
        inputs = inputs if self._groups != 1 else _up(inputs)
        groups = self._groups or outputs
        return _measured(self._kernel, self._attributes, self._pixels, self._batch, outputs, inputs, groups)


def _up(channels: int) -> int:
    return max(channels, 1) if channels <= _FEW else -(-channels // _GRAIN) * _GRAIN


@cache
def _measured(
    kernel: tuple[int, ...],
    attributes: tuple[tuple[str, Any], ...],
    pixels: tuple[int, ...],
    batch: int,
    outputs: int,
    inputs: int,
    groups: int,
) -> float:
    import onnx  # an extra, and large
    from onnx import TensorProto, helper

    random = np.random.default_rng(0)
    weight = random.standard_normal((outputs, inputs, *kernel), dtype=np.float32)
    images = random.standard_normal((batch, inputs * groups, *pixels), dtype=np.float32)
    node = helper.make_node("Conv", [INPUT, "weight"], [OUTPUT], group=groups, **dict(attributes))
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, images.shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    session = session_of(model.SerializeToString())
    times = [thread_seconds(session, images) for _ in range(_WARM_UP + _PASSES)]
    return statistics.median(times[_WARM_UP:]) / batch


def _layers(network: DenseNetwork) -> list[_Layer]:
    """Those that a forward pass calls, as often as it does."""
    dense, found = network.build(torch.device("cpu")), list[_Layer]()
    pixels: dict[str, tuple[int, ...]] = {}
    handles = [
        dense.get_submodule(trace.name).register_forward_pre_hook(
            lambda _, given, name=trace.name: pixels.__setitem__(name, tuple(given[0].shape[2:]))
        )
        for trace in network.traces
    ]
    with torch.inference_mode():
        dense(torch.zeros(1, *network.image_shape))
    for handle in handles:
        handle.remove()
    for trace in network.traces:
        found.append(_Layer(trace.name, dense.get_submodule(trace.name), pixels[trace.name], trace.positions))
    return found
