"""How a job came to its cluster: the files that were uploaded with it, and whether strangers could hand in others."""

from __future__ import annotations

import ipaddress
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import ray


def uploaded_files() -> Iterator[tuple[int, Path]]:
    """Size in bytes and path of each file that was uploaded with this job; nothing where it was not submitted so."""
    if not str(ray.get_runtime_context().runtime_env.get("working_dir") or "").startswith("gcs://"):
        return
    here = Path.cwd()
    for path in here.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path.stat().st_size, path.relative_to(here)


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
