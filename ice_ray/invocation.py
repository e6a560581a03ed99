"""How this process was started, and so how its user starts a job: `ice-ray prune`, or `python jobs/ice_prune.py`.

Imports nothing heavy: `ice-ray --help` waits for it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

CONSOLE = "ice-ray"
_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray gives it to the entrypoint of a submitted job
API_SERVER = "RAY_API_SERVER_ADDRESS"  # where `ray job submit` finds the cluster; Ray's own variable
_UV = "UV_RUN_RECURSION_DEPTH"  # set below `uv run`, which finds programs that the user's shell does not


def program(job: str) -> str:
    """The name that usage and error messages begin with.

    Args:
        job: `prune`, `search`, `replay`, `inspect`, `report` or `export`.

    >>> program("prune")
    'ice-ray prune'
    """
    return f"ice_{job}.py" if _script_of_a_job() else f"{CONSOLE} {job}"


def job_words(job: str) -> list[str]:
    """The words that start a job in this user's shell, from the folder that this process was started in.

    What started this process starts the next one: a script of `jobs/`, `python -m ice_ray`, or the console command.
    From a notebook or a script of the user's own it is the console command, or `python -m ice_ray` where a shell does
    not find that. Below `uv run` it is `uv run` again, and a submitted job is submitted again, to the address that
    RAY_API_SERVER_ADDRESS has (`ice_ray.cluster.submission.find_api_server`).
    """
    words = _words(job)
    if was_submitted():
        place = ["--address", address] if (address := os.environ.get(API_SERVER)) else []
        return ["ray", "job", "submit", *place, "--working-dir", ".", "--", *words]
    return ["uv", "run", *words] if os.environ.get(_UV) else words


def was_submitted() -> bool:
    """Whether this process is the entrypoint of a job that `ray job submit` has handed in."""
    return bool(os.environ.get(_SUBMITTED))


def submitted_environment() -> dict[str, Any]:
    """The runtime environment that this job was submitted with; empty where it was not submitted, or with none."""
    return json.loads(os.environ.get(_SUBMITTED) or "{}").get("runtime_env") or {}


def _words(job: str) -> list[str]:
    if script := _script_of_a_job():
        return [_python(), _shortest(script.with_name(f"ice_{job}.py"))]
    started = Path(sys.argv[0])
    if started.name == "__main__.py" and started.parent.name == "ice_ray":
        return [_python(), "-m", "ice_ray", job]
    if started.stem == CONSOLE:
        return [_as_typed(str(started)), job]
    return [CONSOLE, job] if shutil.which(CONSOLE) else [_python(), "-m", "ice_ray", job]


def _script_of_a_job() -> Path | None:
    """The file, where this process runs one of `jobs/`."""
    started = Path(sys.argv[0])
    is_one = started.suffix == ".py" and started.stem.startswith("ice_") and started.parent.resolve().name == "jobs"
    return started if is_one else None


def _python() -> str:
    return _as_typed(sys.executable or "python3")


def _as_typed(path: str) -> str:
    """A program by its bare name where the shell finds the same file by that, else by its path."""
    name = Path(path).name
    names = dict.fromkeys(("python", "python3", name) if name.startswith("python") else (name,))
    # Not resolved: a virtual environment's Python is a link to the one that it was made with.
    found = {each: Path(there).absolute() for each in names if (there := shutil.which(each))}
    return next((each for each, there in found.items() if there == Path(path).absolute()), _shortest(Path(path)))


def _shortest(path: Path) -> str:
    """Relative where it lies below the working directory."""
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)
