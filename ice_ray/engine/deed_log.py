"""What has been carried out, on the run's own storage: a line of JSON per deed, so that no run does it again."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, get_args

import torch
from torch import Tensor

from ice_ray.address import Place
from ice_ray.engine.actions import Action, Checks, Measured, Outcome, Recovered
from ice_ray.engine.cost import Cost
from ice_ray.engine.memory import Deed
from ice_ray.engine.threshold import Threshold
from ice_ray.files import append_line, make_folder, whole_lines
from ice_ray.pruning.compensation import Repairs
from ice_ray.training.schedules.retraining import Replayed, WarmCosine

_PARTS = (Checks, Cost, Deed, Measured, Outcome, Recovered, Repairs, Replayed, Threshold, WarmCosine)
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (*get_args(Action), *_PARTS)}


class DeedLog:
    """A file that one process appends to. A line that a killed process left unfinished, or that is damaged, is passed
    over.
    """

    def __init__(self, path: Place) -> None:
        self._path = path

    def load(self) -> list[Deed]:
        """Every whole deed, in the order in which they were done."""
        found = (_parsed(line) for line in whole_lines(self._path))
        return [deed for deed in found if deed is not None]

    def append(self, deed: Deed) -> None:
        """Write down one more; it outlives this process at once."""
        make_folder(self._path.parent)
        append_line(self._path, json.dumps(_plain(deed)))


def _parsed(line: str) -> Deed | None:
    try:
        deed = _typed(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return deed if isinstance(deed, Deed) else None


def _plain(value: Any) -> Any:
    """As JSON; what JSON does not have is an object of one key, which names the kind."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {type(value).__name__: fields}
    if isinstance(value, Tensor):
        return {"tensor": value.float().tolist()}  # every float32 is some number of JSON's, and comes back from it
    if isinstance(value, dict):
        return {"map": {key: _plain(each) for key, each in value.items()}}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _typed(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_typed(each) for each in value)
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return torch.tensor(content, dtype=torch.float32)
    if kind == "map":
        return {key: _typed(each) for key, each in content.items()}
    return _KINDS[kind](**{name: _typed(each) for name, each in content.items()})
