"""Compare and swap: an owner's name replaces what was there before, or nothing is done. Claims stand on this.

A folder knows exclusive creation. On an object store it takes Lamport's bakery, with nothing but whole puts, reads and
lists: pyarrow hands on no conditional put, of S3's or of another store's. What this needs instead is that a read or a
list shows every put that had ended before it began, as S3, Google's store and those that speak like them promise. Time
decides nothing here, but for those that died in the queue on another host.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import singledispatch

from ice_ray.address import Address, LocalPath, StoragePath
from ice_ray.claims.owner import Owner

_PAUSE_SECONDS = 0.02
Await = Callable[[StoragePath, bytes], None]
"""Returns once the owner that a path names, by its content, is lost or has gone; raises where it is there."""
LOST_SECONDS = 60.0
"""Whoever gave no sign for so long, as this process has seen it, is lost."""
_POLL_SECONDS = 0.1


def content_of(path: StoragePath) -> bytes | None:
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


def take(path: StoragePath, owner: Owner, awaited: Await) -> None:
    """Put the owner's name there, where there is none or a lost one's. Of several that try, one succeeds.

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
def _swap(path: StoragePath, before: bytes | None, owner: Owner, awaited: Await) -> bool:
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


@contextmanager
def in_turn(path: Address, owner: Owner) -> Iterator[None]:
    """Be the only one in such a block for `path`, among all whose bids lie beside it, one object each.

    Raises:
        OSError: the store refused it.
    """
    own = path.parent / f"{_prefix(path)}{owner.id}"
    own.write_bytes(_bid(owner, None))
    try:
        number = 1 + max((bid.number or 0 for bid in _bids(path)), default=0)
        own.write_bytes(_bid(owner, number))
        seen = _Seen()
        while any(bid.is_before(number, own) and not seen.is_lost(bid) for bid in _bids(path)):
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        with suppress(OSError):
            own.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Bid:
    path: Address
    owner: Owner | None
    number: int | None  # None: still at choosing one

    def is_before(self, number: int, own: Address) -> bool:
        return self.path != own and (self.number is None or (self.number, self.path.name) < (number, own.name))


def _bid(owner: Owner, number: int | None) -> bytes:
    return json.dumps({"owner": owner.content.decode(), "number": number}).encode()


def _prefix(path: Address) -> str:
    return f"{path.name}.bid-"


def _bids(path: Address) -> list[_Bid]:
    found = []
    for each in path.parent.glob(f"{_prefix(path)}*"):
        with suppress(FileNotFoundError):  # it has just gone
            found.append(_read(each))
    return found


def _read(path: Address) -> _Bid:
    content = path.read_bytes()
    try:
        told = json.loads(content)
        return _Bid(path, Owner.of(told["owner"].encode()), None if told["number"] is None else int(told["number"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return _Bid(path, None, None)


@dataclass
class _Seen:
    """When this process first saw each bid of the others."""

    since: dict[_Bid, float] = field(default_factory=dict)

    def is_lost(self, bid: _Bid) -> bool:
        waited = time.monotonic() - self.since.setdefault(bid, time.monotonic())
        lost = waited > LOST_SECONDS or (bid.owner is not None and bid.owner.state == "gone")
        if lost:
            with suppress(OSError):
                bid.path.unlink(missing_ok=True)
        return lost
