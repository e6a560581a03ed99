"""What a pruned model can be written as for other runtimes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, get_args

from ice_ray.errors import UserError, nearest

Format = Literal["onnx", "torch"]
SUFFIXES: dict[Format, str] = {"onnx": "onnx", "torch": "pt2"}
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_format(format: str) -> None:
    """Raises UserError: there is no such format, or the packages that write it are missing."""
    if format not in SUFFIXES:
        raise UserError(f"unknown format '{format}' ({nearest(str(format), list(get_args(Format)))})")
    if format == "onnx":
        need_onnx("exporting to ONNX")


def need_onnx(what: str) -> None:
    """Raises UserError: a package that `what` needs is missing."""
    missing = [package for package in _ONNX_PACKAGES if find_spec(package) is None]
    if missing:
        raise UserError(f"{what} needs {', '.join(missing)}, not installed here: pip install 'ice_ray[onnx]'")
