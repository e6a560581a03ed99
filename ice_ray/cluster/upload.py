"""The working directory that a submission carried."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ray


def uploaded_files() -> Iterator[tuple[int, Path]]:
    """Size in bytes and path of each file that was uploaded with this job; nothing where it was not submitted so."""
    if not str(ray.get_runtime_context().runtime_env.get("working_dir") or "").startswith("gcs://"):
        return
    here = Path.cwd()
    for path in here.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path.stat().st_size, path.relative_to(here)
