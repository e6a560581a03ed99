"""How a job came to its cluster: the files that were uploaded with it, and whether strangers could hand in others."""

from __future__ import annotations

import ipaddress
import os
import urllib.error
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import ray
from ray.job_submission import JobSubmissionClient

from ice_ray.errors import UserError
from ice_ray.invocation import API_SERVER, submitted_environment, was_submitted
from ice_ray.local_path import LocalPath
from ice_ray.storage_path import StoragePath


def uploaded() -> list[tuple[int, str]]:
    """What lies at the top of the working directory that was uploaded with this job, files and folders, with its bytes,
    largest first; nothing where it was not submitted so.
    """
    if not _is_uploaded():
        return []
    here, sizes = Path.cwd(), Counter[str]()
    for path in here.rglob("*"):
        if path.is_file() and not path.is_symlink():
            top = path.relative_to(here).parts
            sizes[f"{top[0]}/" if len(top) > 1 else top[0]] += path.stat().st_size
    return [(size, name) for name, size in sizes.most_common()]


def check_lasting(storage: StoragePath) -> None:
    """Refuse to keep runs in the copy of a working directory that Ray has made for this job, and removes after it.

    Raises:
        UserError: they would be there.
    """
    if _is_uploaded() and isinstance(storage, LocalPath) and storage.is_relative_to(Path.cwd()):
        raise UserError(
            f"--storage '{storage.shown()}' would go with this submitted job's copy of the working directory: give a "
            "folder that all nodes see, or an address such as s3://bucket/path"
        )


def find_api_server() -> None:
    """Where jobs are submitted to this cluster, for the commands that a submitted job records: into the variable that
    Ray's clients read, unless whoever submitted it has set that (they may reach the head by another address).
    """
    if was_submitted() and not os.environ.get(API_SERVER):
        with suppress(Exception):  # of many kinds; the command is then without
            os.environ[API_SERVER] = JobSubmissionClient().get_address()


def _is_uploaded() -> bool:
    """Whether the working directory came with the submission of this job."""
    return str(submitted_environment().get("working_dir") or "").startswith("gcs://")


_ASKED = "/api/jobs/"  # whoever may list jobs may also submit them
_SECONDS = 5.0


def open_dashboard(url: str) -> bool:
    """Whether a dashboard can be reached from outside this machine, and answers without a token.

    Args:
        url: with or without a scheme.
    """
    address = url if "://" in url else f"http://{url}"
    host = urlsplit(address).hostname or ""
    if _is_loopback(host):
        return False
    try:
        # By hand, not by Ray's client, which would send the token.
        with urllib.request.urlopen(address + _ASKED, timeout=_SECONDS) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):  # 401 among them
        return False


def dashboard_url() -> str:
    """Of the cluster that this process is in; empty where there is none."""
    return str(ray.get_runtime_context().worker.node.address_info.get("webui_url") or "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
