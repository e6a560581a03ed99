"""What a user adds of their own: anything that goes by a name may be `package.module:function` instead."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from ice_ray.errors import UserError


def is_own(name: str) -> bool:
    """Whether a name has the form `package.module:function`.

    >>> is_own("mine.models:build"), is_own("l1"), is_own("parquet:/data"), is_own("imagefolder:photos")
    (True, False, False, True)
    """
    module, colon, function = name.partition(":")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def origin_of(name: str, what: str) -> Path:
    """Where the code that a `package.module:function` names would come from. Runs none of it.

    Args:
        what: it is meant as, for the message.

    Raises:
        UserError: there is none, or it lies neither in the working directory nor among the installed packages.
    """
    package = name.partition(":")[0].partition(".")[0]
    here = Path.cwd()
    try:
        # The working directory first, as for the import itself; a package's own code is not run by looking for it.
        found = PathFinder.find_spec(package, [str(here), *sys.path]) or importlib.util.find_spec(package)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise UserError(
            f"{what} '{name}': ModuleNotFoundError: No module named '{package}'; give package.module:function, "
            "importable from the working directory"
        )
    places = [*(found.submodule_search_locations or ()), *([found.origin] if found.has_location else [])]
    allowed = [here, *(Path(path) for path in sysconfig.get_paths().values()), *_of_editable_installs()]
    outside = [place for place in places if not any(Path(place).resolve().is_relative_to(root) for root in allowed)]
    if outside:
        raise UserError(
            f"{what} '{name}' would be read from '{outside[0]}', which is neither in the working directory nor an "
            "installed package: start the job from its folder, or install it"
        )
    return Path(places[0]) if places else Path(sys.executable)


def _of_editable_installs() -> list[Path]:
    """Folders that installed packages point to."""
    site = Path(sysconfig.get_paths()["purelib"])
    lines = [line.strip() for file in site.glob("*.pth") for line in file.read_text(errors="replace").splitlines()]
    return [Path(line).resolve() for line in lines if line.startswith("/")]


def load_own(name: str, what: str) -> Callable[..., Any]:
    """The function or class that `package.module:function` names, importable from the working directory.

    Args:
        what: it is meant as, for the message: "model", "criterion".

    Raises:
        UserError: it cannot be imported, or is nothing to call.
    """
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # the user's code may raise anything
        raise UserError(
            f"{what} '{name}': {type(error).__name__}: {error}; give package.module:function, importable from the "
            "working directory"
        ) from error
    if not callable(function):
        raise UserError(f"{what} '{name}' is not a function")
    return function  # type: ignore[no-any-return]
