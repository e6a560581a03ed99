"""A real job whose run lies in a bucket loses processes, and for a while the store, and ends as one in a folder."""

import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
import torch
from jobs_at_work import ROOT, command, decisions, finish, pruned_weights
from object_storage import new_server
from processes import MEMORY, TRIAL, WORKER, Titles, workers

from ice_ray.address import storage_path
from ice_ray.cluster.fault_log import FaultLog

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
_AWAY_SECONDS = 15
_LONG = ("--search.trials", "4", "--no-threshold")
"""Enough to do that faults find it at work, however fast the machine is."""


@pytest.fixture(scope="module")
def server():
    """One of its own, for it is stopped for a while. So is its bucket: a process asks but once where one is."""
    server = new_server()
    with server.running("at-risk") as process, pytest.MonkeyPatch.context() as environment:
        for name, value in server.variables.items():
            environment.setenv(name, value)
        yield process


def test_it_ends_as_if_nothing_had_been(server, tmp_path):
    finish(command("ice_prune.py", tmp_path, "--name", "whole", *_LONG))
    whole, run = tmp_path / "whole", storage_path("s3://at-risk/runs") / "suffered"
    weights = ("--weights", str(whole / "dense.safetensors"))
    words = command("ice_prune.py", run.parent, "--name", run.name, *weights, *_LONG)
    printed = tmp_path / "printed"
    with printed.open("wb") as output:
        job = subprocess.Popen(words, stdout=output, stderr=output, cwd=ROOT)

    def wait(reached: Callable[[], bool]) -> None:
        while not reached():
            assert job.poll() is None, printed.read_text()
            time.sleep(0.1)

    def records() -> int:
        return len(list((run / "search" / "actions.jsonl.lines").iterdir()))

    def wait_for_records(more: int) -> None:
        before = records()
        wait(lambda: records() >= before + more)

    def lose(titles: Titles) -> None:
        wait(lambda: bool(workers(titles, job.pid)))
        workers(titles, job.pid)[0].kill()

    try:
        wait_for_records(5)
        lose(MEMORY)
        wait_for_records(4)
        lose(TRIAL)
        wait_for_records(4)
        os.kill(server.pid, signal.SIGSTOP)
        time.sleep(_AWAY_SECONDS)
        os.kill(server.pid, signal.SIGCONT)
        wait(lambda: "step 2/6" in printed.read_text())
        lose(WORKER)
        assert job.wait() == 0, printed.read_text()
    finally:
        job.kill()
    counted = FaultLog.of(run).counts()
    assert counted.keys() >= {"action cache restart", "trial restart", "worker restart"}
    assert decisions(run) == decisions(whole)
    weights, theirs = pruned_weights(run), pruned_weights(whole)
    assert all(torch.equal(weights[key], theirs[key]) for key in theirs)
