"""What a user adds of their own: anything that goes by a name may be `package.module:function` instead."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
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
