"""Files of weights that are damaged, of something else, or hostile."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from bad_input import PROBE, BadInput, Case, cut, garbage
from torch import Tensor

from ice_ray.models.registry import ModelSpec

MODEL = "cifar-resnet8"


class Runs:
    """Calls something when it is unpickled the unsafe way."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


@cache
def weights() -> dict[str, Tensor]:
    return dict(ModelSpec(MODEL, 10).build().state_dict())


@cache
def whole(ending: str) -> bytes:
    """A file that is as it should be."""
    return safetensors.torch.save(weights()) if ending == ".safetensors" else _saved(weights())


def truncated(case: Case) -> BadInput:
    ending = case.random.choice([".safetensors", ".pth", ".th", ".pt"])
    return _asked(case, ending, cut(case.random, whole(ending)))


def no_weights(case: Case) -> BadInput:
    chance = case.random
    header = b'{"x":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}'
    content = chance.choice(
        [
            garbage(chance, chance.randint(0, 4000)),
            struct.pack("<Q", chance.choice([2**63, 10**9, len(header)])) + header,  # lengths that lie
            b"PK\x03\x04" + garbage(chance, 500),
            b"\x80\x02}q\x00.",
            b"\x80\x05" + garbage(chance, 100),
            pickle.dumps(chance.choice([None, 3, [1], "x", {"a": 1}]), protocol=chance.randint(0, 5)),
            _zip({"archive/data.pkl": garbage(chance, 50), "archive/version": b"3"}),
            _zip({"a.txt": b"no archive of torch"}),
        ]
    )
    return _asked(case, chance.choice([".safetensors", ".pth", ".pt", ".bin", ""]), content)


def other_weights(case: Case) -> BadInput:
    """A state dict that does not fit, or does not hold tensors only."""
    chance, state = case.random, dict(weights())
    key = chance.choice([key for key in state if not key.endswith("num_batches_tracked")])
    kind = chance.choice(["missing", "unknown", "shape", "nan", "object", "sparse", "nested", "empty", "keys"])
    if kind == "missing":
        del state[key]
    elif kind == "unknown":
        state[f"{key}.x\n"] = torch.zeros(1)
    elif kind == "shape":
        state[key] = chance.choice([state[key][None], torch.zeros(0), state[key].flatten()[:1].clone()[None, None]])
    elif kind == "nan":
        state[key] = torch.full_like(state[key], chance.choice([float("nan"), float("inf")]))
    elif kind == "keys":
        state = {f"net.{name}" if name == key else name: value for name, value in state.items()}
    elif kind == "empty":
        state = {}
    else:
        wrong = {"object": chance.choice([1.5, "x", None, [1]]), "nested": {"a": state[key]}}
        return _asked(case, ".pth", _saved({**state, key: wrong.get(kind, state[key].to_sparse())}))
    return _asked(case, ".pth", _saved(state)) if chance.random() < 0.5 or not state else _safe(case, state)


def hostile(case: Case) -> BadInput:
    """A pickle that would write a file: the probe."""
    chance, target = case.random, str(case.folder / PROBE)
    payload = chance.choice(
        [
            Runs(open, target, "w"),
            Runs(os.system, f"touch {target}"),
            Runs(builtins.exec, f"open({target!r}, 'w')"),
            Runs(builtins.eval, f"open({target!r}, 'w')"),
            Runs(Path.touch, Path(target)),
            Runs(getattr(os, "mkdir"), target),  # noqa: B009
        ]
    )
    held = chance.choice(
        [
            payload,
            {"state_dict": payload},
            {"model": {"conv1.weight": payload}},
            {**weights(), "conv1.weight": payload},
            {**weights(), "extra": [payload]},
            {payload.__class__.__name__: (payload, payload)},
        ]
    )
    form = chance.choice(["zip", "legacy", "pickle", "tensor"])
    if form == "pickle":
        content = pickle.dumps(payload, protocol=chance.randint(0, 5))
    elif form == "tensor":  # beside real storages, as a published checkpoint would carry it
        content = _saved({"epoch": 3, "optimizer": payload, "state_dict": weights()})
    else:
        content = _saved(held, legacy=form == "legacy")
    return _asked(case, chance.choice([".pth", ".pt", ".th", ".bin", ".safetensors", ".pkl"]), content)


KINDS: dict[Callable[[Case], BadInput], int] = {truncated: 40, no_weights: 50, other_weights: 40, hostile: 80}


def _asked(case: Case, ending: str, content: bytes) -> BadInput:
    return case.prune("--model", MODEL, "--weights", case.file(f"w{ending}", content))


def _safe(case: Case, state: dict[str, Tensor]) -> BadInput:
    return _asked(case, ".safetensors", safetensors.torch.save({key: each.clone() for key, each in state.items()}))


def _saved(content: Any, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
