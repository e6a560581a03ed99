"""What a user adds of their own: anything that goes by a name may be `package.module:function` instead."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
from collections.abc import Callable, Collection, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from ice_ray.errors import UserError, in_one_line, nearest
from ice_ray.guard import guarded

_FORM = "give package.module:function, importable from the working directory"


def is_own(name: str) -> bool:
    """Whether a name has the form `package.module:function`.

    >>> is_own("mine.models:build"), is_own("l1"), is_own("parquet:/data"), is_own("imagefolder:photos")
    (True, False, False, True)
    """
    module, colon, function = name.partition(":")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def meant_as_own(name: str) -> str:
    """For a message about an unknown name: how it is written if it is meant as code of the user's own; else nothing.

    >>> meant_as_own("model.MyNet"), meant_as_own("nets/model.py:MyNet"), meant_as_own("photos/train")
    ("; if it is yours: 'model:MyNet'", "; if it is yours: 'nets.model:MyNet'", '')
    """
    if "/" in name and ".py" not in name:
        return ""
    words = re.sub(r"\(.*\)$", "", name.strip()).replace("::", ":").replace(".py:", ":").removeprefix("./")
    module, colon, function = words.replace("/", ".").rpartition(":" if ":" in words else ".")
    better = f"{module}:{function}"
    return f"; if it is yours: '{better}'" if colon and is_own(better) and better != name else ""


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
        UserError: it cannot be imported, lies neither in the working directory nor among the installed packages, is
            nothing to call, or is of Python's own library, which has none of these.
    """
    if not is_own(name):
        raise UserError(f"{what} '{name}': {_FORM}{meant_as_own(name)}")
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    _refuse_pythons(name, what)
    if module_name not in sys.modules:  # else it has run
        origin_of(name, what)
    with guarded(name, what, f"; {_FORM}"):
        module = importlib.import_module(module_name)
        function = getattr(module, function_name, None)
    if function is None:
        valid = [each for each in vars(module) if not each.startswith("_") and callable(getattr(module, each))]
        raise UserError(
            f"{what} '{name}': AttributeError: module '{module_name}' has no attribute '{function_name}' "
            f"({nearest(function_name, valid)}); {_FORM}"
        )
    if not callable(function):
        raise UserError(f"{what} '{name}' is not a function")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise UserError(f"{what} '{name}' is an async function, and nobody would await it: define it with def alone")
    of_python = (inspect.isroutine(function) or inspect.isclass(function)) and _is_pythons(function.__module__ or "")
    if of_python:
        raise UserError(f"{what} '{name}' is a function of Python's own: it is no {what}")
    return function  # type: ignore[no-any-return]


def check_takes(function: Callable[..., Any], name: str, what: str, given: Collection[str], form: str) -> None:
    """See that the user's function can be called as it will be. Does not call it.

    Args:
        given: what it would be called with: in their order, or in a dict, by name.
        form: what it should be, for the message.

    Raises:
        UserError: it cannot.
    """
    try:
        named = given if isinstance(given, Mapping) else {}
        inspect.signature(function).bind(*(() if named else given), **named)
    except Exception as error:  # what looks at a callable may run code of its own
        wrong = f"cannot be called with {' and '.join(given) or 'nothing'} ({error})"
        raise UserError(in_one_line(f"{what} '{name}' {wrong}; {form}")) from error


def _refuse_pythons(name: str, what: str) -> None:
    """Raises UserError: it is of Python's own library: a name that was mistaken, and what it does is not found out."""
    module, _, function = name.partition(":")
    package = module.partition(".")[0]
    loaded = sys.modules.get(module)
    if not _is_pythons(module) or (loaded is not None and not hasattr(loaded, function)):
        return  # of a name that is not there, that is said
    if (Path.cwd() / f"{package}.py").exists() or (Path.cwd() / package / "__init__.py").exists():
        raise UserError(f"{what} '{name}': Python has a module '{package}' of its own; give your file another name")
    raise UserError(f"{what} '{name}' is of Python's own library: it is no {what}; {_FORM}")


def _is_pythons(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names
