"""A job on a run that another is at is refused in one line before Ray starts, and nothing of the run has changed."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
from jobs_at_work import JOBS, ROOT

from ice_ray.claims.claim import HeldError, claim_of, claimed
from ice_ray.config.jobs import ReplayJobConfig
from ice_ray.config.run import RunConfig
from ice_ray.engine.config import Found
from ice_ray.errors import UserError
from ice_ray.files import write_json
from ice_ray.workflow import jobs
from ice_ray.workflow.claiming import claimed_replay, claimed_run
from ice_ray.workflow.jobs import prune_job, replay_job, search_job
from ice_ray.workflow.run_folder import RunFolder
from ice_ray.workflow.running import run

KILLED = """
import os, sys
from ice_ray.address import storage_path
from ice_ray.claims.claim import claimed
with claimed(storage_path(sys.argv[1]) / "mine", "ice_prune.py", print):
    os._exit(9)
"""
JOBS_OF_A_RUN = {"ice_prune.py": prune_job, "ice_search.py": search_job}


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch):
    """Where a job gets as far as Ray, it was not refused."""

    @contextmanager
    def session(verbose):
        raise AssertionError("not refused: Ray would have been started")
        yield

    monkeypatch.setattr(jobs, "ray_session", session)


@pytest.fixture(params=["folder", "bucket"])
def storage(request, tmp_path):
    return tmp_path / "runs" if request.param == "folder" else request.getfixturevalue("bucket") / tmp_path.name


def refusal(capsys, job, kind, program: str, *words: str) -> str:
    """The one line of a job that must end with 2."""
    assert run(job, kind, program, list(words)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix(f"{program}: ")


def describe(folder: RunFolder, *words: str) -> None:
    """What a run that has begun has there."""
    from ice_ray.config.command_line import parse

    folder.create(parse(RunConfig, list(words), "ice_prune.py"), "0" * 64)


@pytest.mark.parametrize("program", JOBS_OF_A_RUN)
@pytest.mark.parametrize("begun", [False, True], ids=["looks at its data", "has begun"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_second_job_is_refused(program, begun, resume, storage, capsys):
    words = ["--preset", "small", "--storage", str(storage), "--name", "mine", *["--resume"] * resume]
    folder = RunFolder(storage / "mine")
    with claimed(folder.path, "ice_search.py", print):
        if begun:
            describe(folder, *words)
        line = refusal(capsys, JOBS_OF_A_RUN[program], RunConfig, program, *words)
        assert f"process {os.getpid()} on host" in line and "wait until it ends, or stop it" in line
        assert "'" + str(folder.path) + "' is being written by ice_search.py" in line
    assert folder.description.is_file() == begun


def test_another_name_is_not_held(storage, capsys):
    with claimed(storage / "mine", "ice_search.py", print):
        line = refusal(
            capsys, prune_job, RunConfig, "p", "--storage", str(storage), "--name", "other", "--weights", "none"
        )
    assert "none" in line and "written by" not in line
    assert not RunFolder(storage / "other").is_there


def test_jobs_without_a_name_in_the_same_second_have_folders_of_their_own(storage):
    config, names, all_in = RunConfig(storage=str(storage)), list[str](), threading.Barrier(8)

    def begin() -> None:
        with claimed_run(config, "prune") as (folder, _):
            names.append(folder.path.name)
            all_in.wait(30)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 8
    assert all(re.fullmatch(r"ice-\d{8}-\d{6}(-\d)?", name) for name in names)


def test_a_job_that_was_killed_before_it_began_leaves_the_name_free(storage, capsys):
    assert subprocess.run([sys.executable, "-c", KILLED, str(storage)], check=False).returncode == 9
    folder = RunFolder(storage / "mine")
    assert claim_of(folder.path).is_file() and not folder.is_there
    words = ["--storage", str(storage), "--name", "mine", "--weights", "none"]
    assert "none" in refusal(capsys, prune_job, RunConfig, "p", *words)
    assert not folder.path.exists() or not list(folder.path.iterdir())


def test_replays_of_several_trials_go_on_beside_each_other_and_not_beside_a_search(storage):
    folder = RunFolder(storage / "mine")
    with ExitStack() as held:
        held.enter_context(claimed_replay(folder, folder))
        for trial in (1, 2):
            held.enter_context(claimed_replay(folder, folder.replay_of(trial)))
        for again in (folder, folder.replay_of(1)):
            with pytest.raises(HeldError), claimed_replay(folder, again):
                pass
        with pytest.raises(HeldError), claimed(folder.path, "ice_prune.py", print):
            pass
    for program in JOBS_OF_A_RUN:
        with claimed(folder.path, program, print):
            for results in (folder, folder.replay_of(1)):
                with pytest.raises(HeldError, match=program), claimed_replay(folder, results):
                    pass


@pytest.mark.parametrize("words", [(), ("--resume",), ("--trial", "1"), ("--trial", "1", "--resume")])
@pytest.mark.parametrize("finished", [False, True], ids=["search at work", "stage 2 at work"])
def test_a_replay_is_refused_while_the_job_of_its_run_is_at_work(words, finished, tmp_path, capsys):
    folder = RunFolder(tmp_path / "mine")
    folder.path.mkdir()
    with claimed(folder.path, "ice_prune.py", print):
        if finished and "--trial" not in words:  # of a trial its table would be read first
            config = json.loads(json.dumps(RunConfig().as_dict()))
            point = {"final_epochs": 0, "final_learning_rate": 0, "accuracy_drop_threshold": 1, "frozen_fraction": 0.5}
            point |= {"base_learning_rate": 0.1, "learning_rate_reduction": 0.01, "midpoint_pruned_share": 0.1}
            folder.best.write_text(json.dumps({"config": config, "hyperparameters": point | {"steepness": 5}}))
        line = refusal(capsys, replay_job, ReplayJobConfig, "r", "--config", str(folder.best), *words)
    assert "is being written by ice_prune.py" in line


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_is_stopped_while_it_looks_at_its_data_leaves_nothing(stop, tmp_path):
    """`ray job stop` sends the first."""
    words = [sys.executable, str(JOBS / "ice_prune.py"), "--storage", str(tmp_path / "runs"), "--name", "mine"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what a script starts in the background ignores it
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    )
    while not claim_of(tmp_path / "runs" / "mine").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(stop)
    assert process.communicate()[1].endswith("ice_prune.py: interrupted\n")
    assert process.returncode == 130
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("held", ['{"ratio": 0.5, "share": 0.49}', '{"ratio": 0.5, "shares": [], "speed": 1}'])
def test_what_a_target_led_to_in_another_version_is_told_so(tmp_path, held):
    folder = RunFolder(tmp_path / "mine")
    folder.path.mkdir()
    folder.target.write_text(held)
    with pytest.raises(UserError, match=r"target\.json' was written by another version of ice_ray.*another --name"):
        folder.found()


def test_what_a_target_led_to_is_read_as_it_was_written(tmp_path):
    folder = RunFolder(tmp_path / "mine")
    folder.path.mkdir()
    found = Found(0.5, (("onnx-latency", 0.48),), (("conv1", 8),), (("conv1", 0.25),), device="cuda:0")
    write_json(folder.target, dataclasses.asdict(found))
    assert folder.found() == found
