"""How long an exported network takes in ONNX Runtime, beside the dense one."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ice_ray.engine.config import BATCH
from ice_ray.engine.network import DenseNetwork
from ice_ray.models.exported import INPUT, write_module

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_WARM_UP, _FEWEST, _MOST = 3, 7, 31
_SECONDS = 6.0


def onnx_latency_share(network: DenseNetwork) -> Callable[[nn.Module], float]:
    """A function that says what a pruned copy leaves of the dense network's latency in ONNX Runtime, on one thread.

    Both are exported; the dense one once. They take turns with a batch of 64 images, and the share is the median over
    the turns. Time is the processor's, of the thread that calculates, so that other programs hardly change it.
    """
    noise = torch.randn(BATCH, *network.image_shape, generator=torch.Generator().manual_seed(0)).numpy()
    dense = _session(network.build(torch.device("cpu")), network.image_shape)

    def share(model: nn.Module) -> float:
        pruned, shares = _session(model, network.image_shape), list[float]()
        for _ in range(_WARM_UP):
            thread_seconds(dense, noise), thread_seconds(pruned, noise)
        end = time.perf_counter() + _SECONDS
        while len(shares) < _FEWEST or (len(shares) < _MOST and time.perf_counter() < end):
            before = thread_seconds(dense, noise)
            shares.append(thread_seconds(pruned, noise) / before)
        return statistics.median(shares)

    return share


def _session(model: nn.Module, image_shape: tuple[int, int, int]) -> InferenceSession:
    with tempfile.TemporaryDirectory(prefix="latency-") as scratch:
        file = Path(scratch) / "model.onnx"
        write_module(model, image_shape, "onnx", file)
        return session_of(file)


def session_of(model: Path | bytes) -> InferenceSession:
    """A session of one thread, of an ONNX model or the file of one."""
    import onnxruntime  # an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def thread_seconds(session: InferenceSession, images: Any) -> float:
    """The processor's time of a pass, which a session of one thread takes in the calling one."""
    began = time.thread_time()
    session.run(None, {INPUT: images})
    return time.thread_time() - began
