"""Trying again what the storage refuses for a moment: a share that reconnects, a disk that somebody makes room on."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from ice_ray.errors import StorageError

_Result = TypeVar("_Result")
_PAUSES = (0.1, 0.4, 1.5, 4.0, 8.0, 16.0)  # half a minute together
# What may pass. A path that is wrong (no such folder, too long a name) stays wrong.
_MAY_PASS = {
    errno.EACCES, errno.EAGAIN, errno.EBUSY, errno.ECONNREFUSED, errno.ECONNRESET, errno.EDQUOT, errno.EHOSTDOWN,
    errno.EHOSTUNREACH, errno.EIO, errno.ENETDOWN, errno.ENETUNREACH, errno.ENODEV, errno.ENOSPC, errno.ENOTCONN,
    errno.EPERM, errno.EREMOTEIO, errno.EROFS, errno.ESTALE, errno.ETIMEDOUT,
}  # fmt: skip
_log = logging.getLogger("ice_ray.storage")
_got_through: list[str] = []


def with_retries(what: str, attempt: Callable[[], _Result]) -> _Result:
    """The result of an attempt that is made again, ever later, where the storage refuses it.

    Args:
        what: what does not succeed, for people: "cannot write 'x'".

    Raises:
        StorageError: it was refused each time.
        OSError: it failed with what does not pass.
    """
    for number, pause in enumerate(_PAUSES):
        try:
            result = attempt()
        except OSError as error:
            if error.errno not in _MAY_PASS:
                raise
            _log.warning("%s (%s); trying again in %g s", what, error.strerror, pause)
            time.sleep(pause)
        else:
            if number:
                _got_through.append(what)
            return result
    try:
        return attempt()
    except OSError as error:
        raise StorageError(f"{what} ({error.strerror}), for {sum(_PAUSES):.0f} seconds now") from error


def retries_that_helped() -> int:
    """How many attempts of this process have succeeded only after others, since this was last asked."""
    count = len(_got_through)
    _got_through.clear()
    return count
