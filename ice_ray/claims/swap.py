"""The one step on which claims stand: an owner's name is put in the place of what was there, or nothing is done."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ice_ray.address import Address, Place
from ice_ray.claims.bakery import in_turn
from ice_ray.claims.owner import Owner
from ice_ray.files import read_now

_PAUSE_SECONDS = 0.02
Await = Callable[[Place, bytes], None]
"""Returns once the owner that a place names, by its content, is lost or has gone; raises where it is there."""


def content_of(place: Place) -> bytes | None:
    """What is there; None where nothing is.

    Raises:
        OSError: the storage does not say, or something else has that name.
    """
    try:
        if isinstance(place, Path) and not stat.S_ISREG(place.lstat().st_mode):  # a pipe would be waited for
            raise OSError(errno.EINVAL, "no file, as a claim is: remove it", str(place))
        return read_now(place)
    except FileNotFoundError:
        return None


def take(place: Place, owner: Owner, awaited: Await) -> None:
    """Put the owner's name there, in the place of none or of one that is lost. Of several that try, one does.

    Raises:
        OSError: the storage refuses it.
        Exception: what `awaited` raises: another owner is there.
    """
    while True:
        found = content_of(place)
        if found is not None:
            awaited(place, found)
        if isinstance(place, Address):
            taken = _swap_object(place, found, owner)
        else:
            taken = _create(place, owner.content) if found is None else _succeed(place, found, owner, awaited)
        if taken:
            return
        time.sleep(_PAUSE_SECONDS)


def _swap_object(place: Address, before: bytes | None, owner: Owner) -> bool:
    with in_turn(place, owner):
        if content_of(place) != before:
            return False
        place.write_bytes(owner.content)
        return True


def _create(place: Path, content: bytes) -> bool:
    """Exclusively, which every system's folders know, shared ones included."""
    try:
        handle = os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:  # it may be interrupted, too
        place.unlink(missing_ok=True)
        raise
    return True


def _succeed(place: Path, lost: bytes, owner: Owner, awaited: Await) -> bool:
    """In the place of one that is lost. Its id makes the name of the right to do so: whoever holds that right, and
    still finds the lost one's name, is alone. The right is a claim itself, for its holder may be lost, too.
    """
    named = Owner.of(lost)
    right = place.with_name(f"{place.name}.after-{named.id if named else 'nobody'}")
    take(right, owner, awaited)
    try:
        if content_of(place) != lost:
            return False
        temporary = place.with_name(f"{place.name}.{secrets.token_hex(4)}.tmp")
        try:
            temporary.write_bytes(owner.content)
            temporary.replace(place)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return True
    finally:
        with suppress(OSError):
            right.unlink(missing_ok=True)
