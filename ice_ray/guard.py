"""What the user's own code raises, wherever it runs: one line that names it, with the file and line."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from ice_ray.errors import OwnCodeError, RunError, TrialFailure, UserError, in_one_line

_PACKAGE = Path(__file__).parent
_LIBRARIES = tuple(Path(path) for path in sysconfig.get_paths().values())
# Of the machine, of Ray, or of our own code that the user's calls back: not the user's, whoever was at work.
_OTHERS = (UserError, RunError, TrialFailure, MemoryError, KeyboardInterrupt)
# torch's of that kind, by name: whoever decodes images does without torch.
_DEVICES = {"OutOfMemoryError", "AcceleratorError", "DistError"}
# What a mistake in a program raises, if need be inside what it calls.
_MISTAKES = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, AssertionError, NotImplementedError)
_LONGEST = 300


@contextmanager
def guarded(name: str, what: str, mend: str = "") -> Iterator[None]:
    """Whatever the block raises is a fault of the user's function: it is called, or looked for, there.

    Args:
        name: of the user's `package.module:function`.
        what: it is, for people: "model", "criterion".
        mend: what to do about it, for the end of the message.

    Raises:
        OwnCodeError: it raised.
    """
    try:
        with _where_they_went():
            yield
    except BaseException as error:  # the user's code may raise anything
        if _is_others(error):
            raise
        frame = next((frame for frame in _frames(error) if _is_theirs(frame[0], name)), None)
        raise _fault(error, name, what, frame, mend) from error


_went_to: list[str] = []
"""The folder that the user's code has gone to in this process, if it has gone to another."""


@contextmanager
def _where_they_went() -> Iterator[None]:
    """Where the user's code changes the working directory, it finds itself there the next time, and the paths of all
    others are where they were.
    """
    here = _folder()
    with suppress(OSError):  # it may be gone by now
        os.chdir(_went_to[0] if _went_to else here)
    try:
        yield
    finally:
        there = _folder()
        _went_to[:] = [there] if there != here else []
        with suppress(OSError):
            os.chdir(here)


def _folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it has been removed
        return ""


@contextmanager
def blaming(owners: Mapping[str, str]) -> Iterator[None]:
    """What the block raises is a fault of the user's only where it was raised in their code: the rest is ours.

    Args:
        owners: the user's `package.module:function` by what it is. Other names are passed over.

    Raises:
        OwnCodeError: their code raised.
    """
    try:
        yield
    except BaseException as error:
        found = None if _is_others(error) else _blamed(error, owners)
        if found is None:
            raise
        what, frame = found
        raise _fault(error, owners[what], what, frame, "") from error


def _blamed(error: BaseException, owners: Mapping[str, str]) -> tuple[str, tuple[FrameType, int]] | None:
    """Whose code raised it, and where; None where it was ours, unless it is a mistake in what theirs told ours."""
    frames, own = _frames(error), [name for name in owners.values() if ":" in name]
    for place, (frame, _) in enumerate(frames):
        if any(_is_theirs(frame, name) for name in own):
            callers = (what for each, _ in frames[place:] for what, name in owners.items() if _is_of(each, name))
            return next(callers, next(what for what, name in owners.items() if name in own)), frames[place]
        if _package(frame) == "ice_ray" and not isinstance(error, _MISTAKES):
            return None
    return None


def _is_others(error: BaseException) -> bool:
    of_device = any(kind.__name__ in _DEVICES and kind.__module__.startswith("torch") for kind in type(error).__mro__)
    return isinstance(error, _OTHERS) or of_device or type(error).__module__.partition(".")[0] in ("ice_ray", "ray")


def _frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """Where it passed through, from where it was raised outwards."""
    return list(traceback.walk_tb(error.__traceback__))[::-1]


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _is_of(frame: FrameType, name: str) -> bool:
    return _package(frame) == name.partition(":")[0].partition(".")[0]


def _is_theirs(frame: FrameType, name: str) -> bool:
    """Whether code is of the package that a name names, or beside it in the working directory."""
    file = Path(frame.f_code.co_filename)
    if not file.is_absolute() or _package(frame) == "ice_ray":
        return False
    here = file.is_relative_to(Path.cwd()) and not is_installed(file)
    return here or _is_of(frame, name)


def is_installed(file: Path) -> bool:
    """Whether a file is Python's, a package's or ours: not one that a user has written for this."""
    return any(file.is_relative_to(path) for path in (_PACKAGE, *_LIBRARIES))


def shown(file: str | Path) -> str:
    """A file as one would type it from the working directory."""
    path = Path(file)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _fault(error: BaseException, name: str, what: str, frame: tuple[FrameType, int] | None, mend: str) -> OwnCodeError:
    where = f" ({shown(frame[0].f_code.co_filename)}:{frame[1]})" if frame else ""
    if isinstance(error, SyntaxError) and error.filename:
        where = f" ({shown(error.filename)}:{error.lineno})"
    said = in_one_line(error.msg if isinstance(error, SyntaxError) else _text(error))
    said = said if len(said) <= _LONGEST else f"{said[:_LONGEST]} ..."
    details = "".join(traceback.format_exception(error))
    told = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return OwnCodeError(f"{what} '{name}' raised {told}{where}{mend}", details)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # that, too, is the user's code
        return ""
