"""The versions and the machine that figures come from."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = ("ice_ray", "torch", "torchvision", "ray", "numpy", "torch-pruning")


def environment() -> dict[str, Any]:
    """Versions and machine, for whoever reads the figures later."""
    packages = {package: _version(package) for package in _PACKAGES}
    return {"python": sys.version.split()[0], "machine": platform.machine(), "packages": packages}


def _version(package: str) -> str:
    """A job submitted with a working directory runs from files, without an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
