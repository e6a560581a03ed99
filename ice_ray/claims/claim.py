"""One job at a time writes to a run: its claim lies in the run's folder, `.claim`, with a sign of life beside it.

A driver that was killed leaves its claim there. On the same host its successor sees that the process is gone and takes
the claim over at once; on another it watches for the sign of life, which is a time or a number that the owner changes:
that it changes is all that is looked at, so no clocks are compared.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from ice_ray.address import StoragePath, storage_path
from ice_ray.claims.owner import Owner
from ice_ray.claims.swap import LOST_SECONDS, content_of, take
from ice_ray.errors import RunError, UserError
from ice_ray.interruption import interrupt, interruptible

BEAT_SECONDS = 5.0
"""So often a claim gives a sign, and looks whether it is still there."""
_CLAIM = ".claim"
_MISSING_BEATS = 3  # a share that is mounted anew shows nothing for a moment
_JOIN_SECONDS = 30.0
_ATTEMPTS = 20
_POLL_SECONDS, _SOON_SECONDS = 0.25, 1.0
Say = Callable[[str], object]


class Claim:
    """The claim of one job on a run."""

    def __init__(self, what: Path | StoragePath, path: StoragePath, owner: Owner) -> None:
        self._what, self._path, self._owner = what, path, owner
        self._sign, self._beats = sign_of(path, owner), 0
        self._done, self._lost = threading.Event(), ""
        self._thread = threading.Thread(target=self._watch, name="claim", daemon=True)

    def start(self) -> None:
        """Give signs from now on."""
        with suppress(OSError):
            self._beat()
        self._thread.start()

    def check(self) -> None:
        """Raises RunError: the claim is another job's now, as this one gave no sign for too long."""
        if self._lost:
            raise RunError(self._lost)

    def release(self) -> None:
        """Give it back, if it is there still, and this is no fork of the process that took it."""
        if self._owner.pid != os.getpid():
            return
        self._done.set()
        if self._thread.ident is not None:  # else it was interrupted before it had begun
            self._thread.join(_JOIN_SECONDS)
        with suppress(OSError):
            if content_of(self._path) == self._owner.content:
                self._path.unlink(missing_ok=True)
        with suppress(OSError):
            self._sign.unlink(missing_ok=True)

    def _watch(self) -> None:
        missing = 0
        while not self._done.wait(BEAT_SECONDS):
            try:
                found = content_of(self._path)
                if found == self._owner.content:
                    missing = 0
                    self._beat()
                    continue
            except OSError:  # the storage is away: nobody else can have taken it meanwhile
                continue
            missing += 1
            if found is not None or missing >= _MISSING_BEATS:
                self._end(Owner.of(found) if found else None)
                return

    def _beat(self) -> None:
        self._beats += 1
        self._sign.change(self._beats)

    def _end(self, successor: Owner | None) -> None:
        by = f"{successor} has taken it over" if successor else "its claim has been removed"
        self._lost = f"'{self._what}' is no longer this job's: {by}; it ends here, and what it wrote stays"
        interrupt()


@contextmanager
def claimed(what: Path | StoragePath, program: str, say: Say) -> Iterator[Claim]:
    """Hold a run, or a part of one, while the block runs. It need not be there yet.

    Args:
        what: its folder or address.
        program: of the job, for people.
        say: told that it takes time to see whether the last job is lost.

    Raises:
        HeldError: another job is at it.
        OSError: the storage refuses it.
        RunError: from within the block: it has been taken over, as this process was stopped for too long.
    """
    path, owner = claim_of(what), Owner.here(program)
    claim, made = Claim(what, path, owner), list[StoragePath]()
    try:
        _take(path, owner, partial(await_end, what, say), made)
        with interruptible():
            claim.start()
            yield claim
    except KeyboardInterrupt:
        claim.check()
        raise
    finally:
        claim.release()
        _remove_empty(made)


def nobody_s(what: Path | StoragePath) -> Claim:
    """A claim on what nobody will write to: it is never lost."""
    return Claim(what, claim_of(what), Owner.here(""))


def claim_of(what: Path | StoragePath) -> StoragePath:
    """Where the claim of a run lies."""
    return storage_path(what) / _CLAIM


def is_of_claim(path: StoragePath) -> bool:
    """Whether it is there for a claim's sake alone, of a living job or of one that was killed."""
    return path.name.startswith(_CLAIM)


def holder(what: Path | StoragePath) -> Owner | None:
    """The owner of the claim, alive or not; None where there is none, or the storage does not say."""
    with suppress(OSError, ValueError):  # the latter of a path that can be none
        return Owner.of(content_of(claim_of(what)) or b"")
    return None


def refuse_held(what: Path | StoragePath) -> None:
    """Refuse at once a run that another process of this host holds; of other hosts nothing is known so soon.

    Raises:
        HeldError: so.
    """
    owner = holder(what)
    if owner is not None and owner.state == "alive":
        raise held_by(what, owner)


def await_unheld(what: Path | StoragePath, say: Say, but: str) -> None:
    """Return where nobody holds it, or only the program named.

    Raises:
        HeldError: another is.
        OSError: the storage does not say.
    """
    found = content_of(claim_of(what))
    owner = Owner.of(found or b"")
    if found is not None and (owner is None or owner.program != but):
        await_end(what, say, claim_of(what), found)


def _take(
    path: StoragePath, owner: Owner, awaited: Callable[[StoragePath, bytes], None], made: list[StoragePath]
) -> None:
    """Take it.

    Args:
        made: filled with the folders that are to go, the innermost first, where nothing is put there.
    """
    for attempt in range(_ATTEMPTS):
        made[:] = dict.fromkeys([*path.parent.missing_folders(), *made])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            take(path, owner, awaited)
            break
        except FileNotFoundError:  # one who had made the folder has just removed it again
            if attempt == _ATTEMPTS - 1:
                raise
    made[:] = dict.fromkeys([path.parent, *made])  # its own one even where a loser of the race had made it


def _remove_empty(folders: list[StoragePath]) -> None:
    """Remove those that are empty, the innermost first."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


class HeldError(UserError):
    """Another job holds it."""


def await_end(what: Path | StoragePath, say: Say, path: StoragePath, found: bytes) -> None:
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


def held_by(what: Path | StoragePath, owner: Owner) -> HeldError:
    """The refusal that names the owner, and what to do."""
    mend = f"wait until it ends, or stop it (`kill {owner.pid}` there)"
    return HeldError(f"'{what}' is being written by {owner}: {mend}")


def sign_of(path: StoragePath, owner: Owner) -> StoragePath:
    """Where the owner of a claim gives signs of life."""
    return path.parent / f"{path.name}.sign-{owner.id}"


def _pulse(path: StoragePath, owner: Owner | None) -> object:
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
