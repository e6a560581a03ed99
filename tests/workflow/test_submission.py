"""docs/cluster.md's lines for a submitted job, against a real head with a token: submitted, stopped, gone on with."""

import re
import shlex
import time
from pathlib import Path

import pytest
from own_head import RAY, ROOT, Head, running_head

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
SMALL = ["--preset", "small", "--search.trials", "2", "--replay.workers", "1"]
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def printed_line(start: str) -> list[str]:
    """A command of the section on submission, as words."""
    section = (ROOT / "docs" / "cluster.md").read_text().partition("<!-- submission -->")[2].partition("```\n")[0]
    lines = section.replace("\\\n", " ").splitlines()
    (line,) = (line for line in lines if line.startswith(start))
    return shlex.split(line.partition(" #")[0])


@pytest.fixture(scope="module")
def head():
    with running_head(2) as started:
        yield started


def said(head: Head, *words: str) -> str:
    """A command of that page with this head's address, to its end."""
    command = [RAY, *words[1:]]
    if "--address" not in command:
        command[3:3] = ["--address", head.dashboard]
    ended = head.submit(*(head.dashboard if word.startswith("http://") else word for word in command))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def submission(storage: Path, name: str, *options: str) -> list[str]:
    words = printed_line("ray job submit")
    words[words.index("--storage") + 1] = str(storage)
    words[words.index("--name") + 1] = name
    return [*words, *SMALL, *options]


def test_submitted_stopped_and_gone_on_with(head, tmp_path):
    first = submission(tmp_path, "job")
    first[3:3] = ["--no-wait", "--submission-id", "first"]
    said(head, *first)
    logs = [word if word != "ID" else "first" for word in printed_line("ray job logs")]
    deadline = time.monotonic() + 300
    while "(1/2)" not in (log := said(head, *logs)):
        assert time.monotonic() < deadline and "Traceback" not in log, log
        time.sleep(2)
    stop = [word if word != "ID" else "first" for word in printed_line("ray job stop")]
    assert "was stopped" in said(head, *stop)
    log = said(head, *logs)
    assert "interrupted; the run is kept: --resume --name job" in log
    assert "Traceback" not in log
    ours = [line for line in log.splitlines() if " cli.py:" not in line]  # Ray's client colours its own heading
    assert not CONTROL.search("".join(ours))

    printed = said(head, *submission(tmp_path, "job", "--resume"))
    assert "dense against pruned" in printed
    (ended,) = re.findall(r"(trial-\d+) \(1/2\)", log)
    assert f"{ended} (" not in printed  # what had ended is not run again
    assert "warning: the working directory" not in printed
    assert (tmp_path / "job" / "pruned_model" / "model.json").is_file()


def test_nobody_submits_without_the_token(head):
    """Nor reads what others have run."""
    stranger = {key: value for key, value in head.environment.items() if not key.startswith("RAY_AUTH")}
    ended = Head(head.address, head.dashboard, stranger | {"RAY_AUTH_MODE": "disabled"}).run(
        RAY, "job", "list", "--address", head.dashboard
    )
    assert ended.returncode != 0
    assert "401" in ended.stdout + ended.stderr or "auth" in (ended.stdout + ended.stderr).lower()
