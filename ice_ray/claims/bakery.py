"""One at a time on an object store, with nothing but whole puts, reads and lists: Lamport's bakery.

pyarrow hands on no conditional put, of S3's or of another store's. What this needs instead is that a read or a list
shows every put that had ended before it began, as S3, Google's store and those that speak like them promise. Time
decides nothing here, but for those that died in the queue on another host.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from ice_ray.address import Address
from ice_ray.claims.owner import Owner

LOST_SECONDS = 60.0
"""Whoever gave no sign for so long, as this process has seen it, is lost."""
_POLL_SECONDS = 0.1


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
    """Since when the bids of others have been as they are, as seen from here."""

    since: dict[_Bid, float] = field(default_factory=dict)

    def is_lost(self, bid: _Bid) -> bool:
        waited = time.monotonic() - self.since.setdefault(bid, time.monotonic())
        lost = waited > LOST_SECONDS or (bid.owner is not None and bid.owner.state == "gone")
        if lost:
            with suppress(OSError):
                bid.path.unlink(missing_ok=True)
        return lost
