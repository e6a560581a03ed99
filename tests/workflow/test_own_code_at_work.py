"""Code of the user's own in every process of a job: it works where the job does, and what it raises ends the job."""

import json
import os
import re
import subprocess
import sys

import pytest
from jobs_at_work import JOBS, OPTIONS, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MINE = """
from pathlib import Path

import numpy as np
import ray.data
import torch.distributed

from examples.pipeline import EveryFewSteps
from ice_ray.models.cifar import CifarResNet
from ice_ray.pruning.criteria import Criterion


def note():
    return Path("settings/note.txt").read_text()


def build(num_classes):
    assert note() == "here"
    return CifarResNet(8, num_classes)


class Norm(Criterion):
    def score(self, context):
        assert note() == "here"
        if Path("break-trials").exists() and not torch.distributed.is_initialized():
            raise LookupError("in a trial, ünlike before")
        if Path("break-replay").exists() and torch.distributed.is_initialized():
            raise LookupError("in stage 2")
        return {unit.layer: context.weight(unit).abs().sum(dim=1) for unit in context.units}


class Pipeline(EveryFewSteps):
    def step(self, executor, state, preparation):
        assert note() == "here"
        return super().step(executor, state, preparation)


def four(trials):
    assert note() == "here"
    return trials[0].index


def images():
    def image(row):
        assert note() == "here"
        return {"image": np.full((8, 8), row["id"] * 7 % 256, np.uint8), "label": row["id"] % 4}
    assert note() == "here"
    return {"train": ray.data.range(160).map(image), "test": ray.data.range(80).map(image)}
"""
OWN = [
    "--model",
    "mine:build",
    "--data",
    "mine:images",
    "--criterion",
    "mine:Norm",
    "--pipeline",
    "mine:Pipeline",
    "--every",
    "3",
]
OWN += ["--search.objective", "mine:four", "--replay.workers", "2", "--name", "own"]


@pytest.fixture
def project(tmp_path):
    """A folder of the user's, in which jobs are started."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "note.txt").write_text("here")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def job(project, *options, **streams):
    command = [sys.executable, str(JOBS / "ice_prune.py"), *OPTIONS, *OWN, *options]
    return subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, **streams)


def ended(project, *options):
    process = job(project, *options, stdout=subprocess.PIPE)
    _, said = process.communicate()
    return process.returncode, said.decode()


def test_a_fault_in_any_process_ends_the_job_in_one_line_and_mended_it_goes_on(project):
    (project / "break-trials").touch()
    (project / "break-replay").touch()
    code, said = ended(project)
    assert code == 2, said
    raised = "ice_prune.py: criterion 'mine:Norm' raised LookupError: "
    assert said.startswith(f"{raised}in a trial, ünlike before (mine.py:26); the run is kept: --resume --name own")
    assert said.count("\n") == 1

    (project / "break-trials").unlink()
    code, said = ended(project, "--resume")
    assert code == 2, said
    assert said == f"{raised}in stage 2 (mine.py:28); the run is kept: --resume --name own\n"

    # Nobody reads what it says, and the alphabet is too small for it.
    (project / "break-replay").unlink()
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    process = job(project, "--resume", stdout=writing, env=environment)
    os.close(writing)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert not said

    run = project / "runs" / "own"
    kinds = [json.loads(line)["kind"] for line in (run / "faults.jsonl").read_text().splitlines()]
    assert kinds == ["resumption", "resumption"]  # nothing was tried again
    log = (run / "log.txt").read_text()
    assert "chosen by mine:four" in log  # no picture of the number
    for line in ("in a trial, ünlike before (mine.py:26)", "in stage 2 (mine.py:28)", "; pruned model in runs/own/"):
        assert line in log
    assert "dense against pruned" in log
    assert len(re.findall(r"^\[\S+\] (uv run )?\S*python\S* \S*jobs/ice_prune.py --", log, re.MULTILINE)) == 3
