"""Running the jobs in tests: by their command lines, or in this process where a Ray session is open already."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch

import ice_ray
from ice_ray.config.jobs import ReplayJobConfig
from ice_ray.config.run import RunConfig
from ice_ray.workflow.jobs import prune_job, replay_job, search_job
from ice_ray.workflow.running import run

ROOT = Path(__file__).parent.parent
JOBS = ROOT / "jobs"
# The work clock, at a fixed speed: what is compared must not depend on the wall.
OPTIONS = ["--search.trials", "2", "--search.clock", "work", "--search.work-speed", "1e9", "--precision", "fp32"]
# A sampler, whose points are not known in advance, and an objective of one's own: the most that can go wrong.
SEARCH = ["--search.algorithm", "tpe", "--search.objective", "examples.objective:choose"]


def command(job: str, folder: Path, *options: str) -> list[str]:
    return [sys.executable, str(JOBS / job), *OPTIONS, "--storage", str(folder), *options]


def ended_well(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run to the end, with exit code 0."""
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


def finish(arguments: list[str]) -> str:
    """Run to the end; returns what it printed."""
    return ended_well(arguments).stdout


def refused(arguments: list[str]) -> str:
    """Run what must end with 2; returns what it complained of."""
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    return ended.stderr


def kill_at(arguments: list[str], line: str, environment: Mapping[str, str] | None = None) -> None:
    """Run until a line begins so, then kill the driver the hard way."""
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=ROOT, env=environment
    )
    assert process.stdout is not None
    try:
        assert any(found.strip().startswith(line) for found in process.stdout), f"never printed {line}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(3)  # Ray's processes notice that their driver is gone


def prune_here(folder: Path, name: str, *options: str) -> int:
    """The job of both stages in this process; its exit code."""
    return run(prune_job, RunConfig, "ice_prune.py", [*OPTIONS, "--storage", str(folder), "--name", name, *options])


def search_here(folder: Path, name: str, *options: str) -> int:
    """Stage 1 in this process; its exit code."""
    return run(search_job, RunConfig, "ice_search.py", [*OPTIONS, "--storage", str(folder), "--name", name, *options])


def replay_here(best: Path, *options: str) -> int:
    """Stage 2 in this process; its exit code."""
    return run(replay_job, ReplayJobConfig, "ice_replay.py", ["--config", str(best), *options])


def pruned_weights(run: Path) -> dict[str, torch.Tensor]:
    return ice_ray.load_pruned(run / "pruned_model").state_dict()


def decisions(run: Path) -> list[dict[str, object]]:
    steps = json.loads((run / "summary.json").read_text())["steps"]
    return [{key: value for key, value in step.items() if not key.endswith("seconds")} for step in steps]
