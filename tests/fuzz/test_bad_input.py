"""More than a thousand bad inputs: each ends with exit code 2 and one clear line, writes nothing and runs nothing.

They are made from a seed: ICE_RAY_FUZZ_SEED=N tries others, ICE_RAY_FUZZ_TIMES=N tries N times as many.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import bad_artifacts
import bad_flags
import bad_images
import bad_texts
import bad_weights
import pytest
import ray
from bad_input import PROBE, BadInput, Case

from ice_ray.artifact import load_pruned
from ice_ray.config.jobs import InspectConfig, ReplayJobConfig
from ice_ray.config.preset import parse_preset
from ice_ray.config.run import RunConfig
from ice_ray.errors import UserError
from ice_ray.workflow import jobs
from ice_ray.workflow.inspection import inspect_job
from ice_ray.workflow.running import run

ROOT = Path(__file__).parent.parent.parent
SEED = int(os.environ.get("ICE_RAY_FUZZ_SEED", "0"))
TIMES = int(os.environ.get("ICE_RAY_FUZZ_TIMES", "1"))
MAKERS = bad_flags.KINDS | bad_texts.KINDS | bad_weights.KINDS | bad_images.KINDS | bad_artifacts.KINDS
PRESETS, COMMAND_LINES, LONGEST_LINE = 60, 8, 1500


def made(maker: Callable[[Case], BadInput], number: int, folder: Path) -> BadInput:
    """The input of that number; the same every time."""
    folder.mkdir(parents=True)
    return maker(Case(random.Random(f"{SEED} {maker.__name__} {number}"), folder))


def files(*folders: Path) -> dict[str, str]:
    """Every file below, with its content's digest."""
    found = [path for folder in folders for path in folder.rglob("*")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in found}


@contextmanager
def no_cluster(config: object) -> Iterator[None]:
    """Where a job gets as far as Ray, what it was given was taken for good."""
    raise AssertionError("taken for good: Ray would have been started")
    yield


def ended(wrong: BadInput) -> tuple[int, str]:
    """The exit code, and what was said."""
    arguments = list(wrong.arguments)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        if wrong.job == "prune":
            code = run(jobs.prune_job, RunConfig, "job", arguments)
        elif wrong.job == "replay":
            code = run(jobs.replay_job, ReplayJobConfig, "job", arguments)
        elif wrong.job == "inspect":
            code = run(inspect_job, InspectConfig, "job", arguments)
        else:
            code = run(lambda config: load_pruned(arguments[0]), RunConfig, "job", [])
    return code, said.getvalue()


def fault(code: int, said: str, before: dict[str, str], after: dict[str, str]) -> str:
    """What is wrong with how it ended; nothing, mostly."""
    lines = said.removesuffix("\n").split("\n")
    if code != 2:
        return f"exit code {code}: {said}"
    if len(lines) != 1 or not lines[0].isprintable() or not lines[0].split(":", 1)[1].strip():
        return f"not one clear line: {said!r}"
    if len(said) > LONGEST_LINE or "Traceback" in said:
        return f"not one clear line: {said[:300]!r} ({len(said)} characters)"
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return f"wrote {sorted(changed)}" if changed else ""


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_it_ends_with_2_and_one_line(maker, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ray_session", no_cluster)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(home := working_directory(tmp_path))
    faults = []
    for number in range(MAKERS[maker] * TIMES):
        folder = tmp_path / str(number)
        wrong = made(maker, number, folder)
        before = files(folder, home)
        try:
            found = fault(*ended(wrong), before, files(folder, home))
        except (Exception, SystemExit) as error:
            frames = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
            ours = [frame for frame in frames if "ice_ray" in frame]
            found = f"{type(error).__name__}: {str(error)[:200]} at {' '.join(ours[-2:])}"
            found += " PROBE" * any(path.name == PROBE for path in folder.rglob("*"))
        if found:
            faults.append(f"{number}: {found} {str(wrong)[:300]}")
    assert not ray.is_initialized()
    assert not faults, f"{len(faults)} of {MAKERS[maker] * TIMES}:\n" + "\n".join(faults[:12])


def working_directory(folder: Path) -> Path:
    """A working directory, with the user's own code in it."""
    home = folder / "home"
    shutil.copytree(ROOT / "examples", home / "own_code", ignore=shutil.ignore_patterns("__pycache__"))
    return home


def test_a_preset_that_is_none_is_refused():
    for number in range(PRESETS * TIMES):
        text = bad_texts.spoilt_preset(random.Random(f"{SEED} preset {number}"))
        with pytest.raises(UserError) as refusal:
            parse_preset("mine", text)
        assert len(str(refusal.value)) < LONGEST_LINE, text


def test_there_are_a_thousand():
    assert sum(MAKERS.values()) + PRESETS >= 1000


@pytest.mark.slow
def test_real_command_lines_end_the_same_way(tmp_path):
    chosen = sorted(MAKERS, key=lambda maker: maker.__name__)
    random.Random(f"{SEED} command lines").shuffle(chosen)
    home = working_directory(tmp_path)
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    tried = 0
    for maker in chosen:
        folder = tmp_path / maker.__name__
        wrong = made(maker, 0, folder)
        if wrong.job == "load" or any("\0" in argument for argument in wrong.arguments) or tried == COMMAND_LINES:
            continue
        tried += 1
        before = files(folder, home)
        command = [sys.executable, ROOT / "jobs" / f"ice_{wrong.job}.py", *wrong.arguments]
        end = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
        found = fault(end.returncode, end.stderr, before, files(folder, home))
        assert not found, f"{wrong}: {found}"
    assert tried == COMMAND_LINES
