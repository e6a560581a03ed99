"""Whether the owner of a claim is there: at once where its process can be looked up, else by its signs of life."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ice_ray.address import Place
from ice_ray.claims.bakery import LOST_SECONDS
from ice_ray.claims.owner import Owner
from ice_ray.claims.swap import content_of
from ice_ray.errors import UserError

_POLL_SECONDS, _SOON_SECONDS = 0.25, 1.0
Say = Callable[[str], object]


class HeldError(UserError):
    """Another job is at it."""


def await_end(what: Path | Place, say: Say, path: Place, found: bytes) -> None:
    """Return once the owner that `path` named, by `found`, is lost or has gone.

    Raises:
        HeldError: it is there.
    """
    owner = Owner.of(found)
    state = owner.state if owner else "unknown"
    if owner and state == "alive":
        raise held_by(what, owner)
    first, quiet, said = _pulse(path, owner), 0.0, False
    while state != "gone" and quiet < LOST_SECONDS:
        time.sleep(_POLL_SECONDS)
        try:
            if content_of(path) != found:
                return
            now = _pulse(path, owner)
        except OSError:  # neither could the other write then
            continue
        if owner and now not in (None, first):
            raise held_by(what, owner)
        quiet += _POLL_SECONDS
        if quiet >= _SOON_SECONDS and not said:
            said = True
            say(
                f"'{what}' was last written by {owner or 'a job that left no name'}: waiting {LOST_SECONDS:.0f} s for "
                "a sign of it before going on"
            )
    if owner:
        with suppress(OSError):
            sign_of(path, owner).unlink(missing_ok=True)


def held_by(what: Path | Place, owner: Owner) -> HeldError:
    """The refusal that names who is at it, and what to do."""
    mend = f"wait until it ends, or stop it (`kill {owner.pid}` there)"
    return HeldError(f"'{what}' is being written by {owner}: {mend}")


def sign_of(path: Place, owner: Owner) -> Place:
    """Where the owner of a claim gives signs of life."""
    return path.parent / f"{path.name}.sign-{owner.id}"


def _pulse(path: Place, owner: Owner | None) -> object:
    """What changes while the owner is there; None where there is no sign of it.

    Raises:
        OSError: the storage does not say.
    """
    if owner is None:
        return None
    try:
        return sign_of(path, owner).version()
    except FileNotFoundError:
        return None
