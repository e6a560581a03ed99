"""Output that is lost, full or of another alphabet ends nothing; what is said is text; a run's folder has it all."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jobs_at_work import JOBS, ROOT

from ice_ray.config.run import RunConfig
from ice_ray.observe.output import RunLog, lasting_output, run_log
from ice_ray.observe.terminal import say, show_times
from ice_ray.workflow.running import run

INSPECT = [sys.executable, str(JOBS / "ice_inspect.py"), "--model", "cifar-resnet8"]


def ended(script, **options):
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, cwd=ROOT, **options)


@pytest.mark.slow
@pytest.mark.parametrize("output", ["| true", ">&-", "> /dev/full 2>&1"])
def test_a_job_ends_as_it_would_have(output):
    """/dev/full takes nothing, as a disk without room."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    well = ended(f"set -o pipefail; {' '.join(INSPECT)} {output}", env=environment)
    assert (well.returncode, well.stderr) == (0, "")
    wrong = ended(f"set -o pipefail; {' '.join(INSPECT)} --ratio 2 {output}", env=environment)
    assert wrong.returncode == 2


@pytest.mark.parametrize("alphabet", ["ascii", "cp1252", "utf-8"])
def test_what_cannot_be_encoded_is_written_out(monkeypatch, alphabet):
    taken = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(taken, encoding=alphabet))
    with lasting_output():
        print("layer \u5c64, \udcff and \u00e9")
    said = taken.getvalue().decode(alphabet)
    assert said.startswith("layer ") and "\\udcff" in said and said.endswith("\n")
    assert ("\u5c64" in said) == (alphabet == "utf-8")


class _Breaks(io.RawIOBase):
    def writable(self):
        return True

    def write(self, content):
        raise BrokenPipeError(32, "Broken pipe")


def test_a_stream_that_breaks_under_a_job_is_not_noticed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(_Breaks()), encoding="utf-8"))
    monkeypatch.setattr(sys, "stderr", None)
    reached = []

    def job(config):
        say("a line")
        show_times({"a part": 1.0})
        print("the user's own", flush=True)
        reached.append(config.name)

    assert run(job, RunConfig, "p", ["--name", "x"]) == 0
    assert reached == ["x"]


def test_names_are_text(capsys):
    """No emoji, no markup, no colours, in lines and in tables."""
    say("chosen by mine:four: [bold]x[/bold] :smile: 42")
    show_times({"mine:four: [red]y[/red]": 1.0})
    said = capsys.readouterr().out
    assert "chosen by mine:four: [bold]x[/bold] :smile: 42\n" in said
    assert "mine:four: [red]y[/red]" in said


def test_a_run_s_log_has_what_was_said_before_its_folder_was_there_and_is_gone_on_with(tmp_path, capsys):
    def job(config):
        say("before")
        (tmp_path / "run").mkdir(exist_ok=True)
        run_log.begin(tmp_path / "run" / "log.txt", "the command")
        say("after: \u5c64")
        show_times({"a part": 1.0})
        if config.resume:
            raise KeyError("a fault of ours")

    assert run(job, RunConfig, "p", []) == 0
    first = (tmp_path / "run" / "log.txt").read_text()
    assert first.splitlines()[0].endswith("] the command") and first.splitlines()[2:4] == ["before", "after: \u5c64"]
    assert first.splitlines()[1] == RunConfig().outset
    assert "a part" in first
    assert run(job, RunConfig, "p", ["--resume", "--name", "x"]) == 1
    assert capsys.readouterr().err == "p: KeyError: 'a fault of ours'\n"
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.startswith(first) and "Traceback" in log and log.count("] the command") == 2


def test_a_log_at_an_address(bucket):
    log, path = RunLog(), bucket / "log-of-a-run" / "log.txt"
    log.add("one")
    log.begin(path, "first")
    log.add("two")
    log.end()
    assert [line.partition("] ")[2] or line for line in path.read_text().splitlines()] == ["first", "one", "two"]
    log.begin(path, "second")
    log.add("three")
    log.end()
    assert path.read_text().endswith("] second\nthree\n") and path.read_text().count("two") == 1


def test_a_log_that_cannot_be_written_is_nobody_s_fault():
    log = RunLog()
    log.begin(Path("/dev/full"), "first")
    log.add("one")
    log.begin(Path("/no/such/folder/log.txt"), "second")
    log.end()
