"""The file systems of object stores, as pyarrow has them (and so Ray), and what their faults come to."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from ice_ray.errors import UserError

Options = tuple[tuple[str, str], ...]
# What may stand behind the question mark of an address. Credentials may not: addresses are printed and written down.
OPTIONS = {"s3": ("endpoint_override", "region", "scheme"), "gs": ("endpoint_override", "scheme")}

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_CONNECT_SECONDS, _GS_RETRY_SECONDS = 10, 10
_LONGEST_WORDS = 200
# S3's words for it, then those of Google's store.
_DENIED = (
    *("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH"),
    *("PERMISSION_DENIED", "UNAUTHENTICATED", "OAuth2"),
)


@cache
def file_system(scheme: str, bucket: str, options: Options) -> Any:
    """pyarrow's, made once a process. Credentials are those that the store's own libraries find: from environment
    variables, from their files, or from the machine.

    Raises:
        UserError: this pyarrow was built without it, or an option or variable is none that it takes.
        OSError: the store does not say where the bucket is.
    """
    try:
        return _s3(bucket, dict(options)) if scheme == "s3" else _gs(dict(options))
    except ValueError as error:
        raise UserError(f"{scheme}://{bucket} cannot be reached as is asked for ({error})") from error
    except ImportError as error:
        raise UserError(f"the pyarrow that is installed here was built without {scheme}://") from error


def _s3(bucket: str, given: dict[str, str]) -> Any:
    from pyarrow.fs import S3FileSystem, resolve_s3_region

    if "endpoint_override" not in given and (endpoint := _first(_ENDPOINTS)):
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError(f"{_ENDPOINTS[-1]} must be http://HOST:PORT or https://HOST")
        given = {"scheme": parts.scheme, "endpoint_override": parts.netloc} | given
    if "region" not in given:
        region = _first(_REGIONS)
        if "endpoint_override" in given:
            given["region"] = region or "us-east-1"  # where the endpoint is one's own, few care
        else:
            try:
                given["region"] = resolve_s3_region(bucket)  # the bucket knows best
            except OSError:  # in China, say, it is not asked at the same place
                if region is None:
                    raise
                given["region"] = region
    # An object of one part goes up in one request, which is whole or not there.
    return S3FileSystem(**given, connect_timeout=_CONNECT_SECONDS, allow_delayed_open=True)


def _gs(given: dict[str, str]) -> Any:
    from pyarrow.fs import GcsFileSystem

    return GcsFileSystem(**given, retry_time_limit=timedelta(seconds=_GS_RETRY_SECONDS))


def _first(variables: tuple[str, ...]) -> str | None:
    return next((value for name in variables if (value := os.environ.get(name))), None)


@contextmanager
def faults_of(address: str) -> Iterator[None]:
    """pyarrow says in words alone what went wrong: give it the system's numbers, and the address for a name.

    Raises:
        OSError: what went wrong in the block.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), address) from error
    except OSError as error:
        if error.filename is not None:  # it has both already
            raise
        raise OSError(*_understood(str(error)), address) from error


def _understood(words: str) -> tuple[int, str]:
    if "NO_SUCH_BUCKET" in words:
        return errno.ENXIO, "no such bucket"
    if any(name in words for name in _DENIED):
        return errno.EACCES, "access denied"
    said = " ".join((words.rpartition("AWS Error ")[2] or words).split())
    return errno.EIO, said[:_LONGEST_WORDS]
