"""The fault that ended a job, in one line for people."""

from __future__ import annotations

from ice_ray.errors import RunError, TrialFailure, UserError, told


def ended_by(error: Exception) -> tuple[str, int] | None:
    """The fault in words and the exit code: 2 for input, 1 for the run; None where it is not expected."""
    fault = told(error) or error
    if isinstance(fault, UserError):
        return str(fault), 2
    if isinstance(fault, (RunError, TrialFailure)):
        return str(fault), 1
    if isinstance(fault, OSError):  # of the storage, or of the machine
        return refused(fault), 1
    if isinstance(fault, MemoryError):
        return f"this machine's memory does not suffice ({cause_of(fault)})", 1
    from ray.exceptions import RayError  # here: a wrong word need not wait for Ray

    if isinstance(fault, RayError):
        return cause_of(fault), 1
    return None


def refused(error: OSError) -> str:
    """What the system said, and of which path."""
    where = f"'{error.filename}': " if error.filename else ""
    return where + (error.strerror or cause_of(error))


def cause_of(error: BaseException) -> str:
    """What a library says, with its kind."""
    from ray.exceptions import RayTaskError

    if isinstance(error, RayTaskError):
        return last_line(error)
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def last_line(error: BaseException) -> str:
    """Of an error whose text is a traceback, the end: what was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
