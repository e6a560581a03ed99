"""The one step on which claims stand: an owner's name is put in the place of what was there, or nothing is done."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from functools import singledispatch

from ice_ray.address import Address, LocalPath, Place
from ice_ray.claims.bakery import in_turn
from ice_ray.claims.owner import Owner

_PAUSE_SECONDS = 0.02
Await = Callable[[Place, bytes], None]
"""Returns once the owner that a path names, by its content, is lost or has gone; raises where it is there."""


def content_of(path: Place) -> bytes | None:
    """What is there; None where nothing is.

    Raises:
        OSError: the storage does not say, or something else has that name.
    """
    try:
        if not path.is_plain():  # a pipe would be waited for
            raise OSError(errno.EINVAL, "no file, as a claim is: remove it", str(path))
        return path.read_now()
    except FileNotFoundError:
        return None


def take(path: Place, owner: Owner, awaited: Await) -> None:
    """Put the owner's name there, in the place of none or of one that is lost. Of several that try, one does.

    Raises:
        OSError: the storage refuses it.
        Exception: what `awaited` raises: another owner is there.
    """
    while True:
        found = content_of(path)
        if found is not None:
            awaited(path, found)
        if _swap(path, found, owner, awaited):
            return
        time.sleep(_PAUSE_SECONDS)


@singledispatch
def _swap(path: Place, before: bytes | None, owner: Owner, awaited: Await) -> bool:
    """Put the owner's name in the place of what was there before; whether it still was."""
    raise NotImplementedError(f"claims in a {type(path).__name__}")


@_swap.register
def _swap_object(path: Address, before: bytes | None, owner: Owner, awaited: Await) -> bool:
    with in_turn(path, owner):
        if content_of(path) != before:
            return False
        path.write_bytes(owner.content)
        return True


@_swap.register
def _swap_file(path: LocalPath, before: bytes | None, owner: Owner, awaited: Await) -> bool:
    return _create(path, owner.content) if before is None else _succeed(path, before, owner, awaited)


def _create(path: LocalPath, content: bytes) -> bool:
    """Exclusively, which every system's folders know, shared ones included."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:  # it may be interrupted, too
        path.unlink(missing_ok=True)
        raise
    return True


def _succeed(path: LocalPath, lost: bytes, owner: Owner, awaited: Await) -> bool:
    """In the place of one that is lost. Its id makes the name of the right to do so: whoever holds that right, and
    still finds the lost one's name, is alone. The right is a claim itself, for its holder may be lost, too.
    """
    named = Owner.of(lost)
    right = path.with_name(f"{path.name}.after-{named.id if named else 'nobody'}")
    take(right, owner, awaited)
    try:
        if content_of(path) != lost:
            return False
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            temporary.write_bytes(owner.content)
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return True
    finally:
        with suppress(OSError):
            right.unlink(missing_ok=True)
