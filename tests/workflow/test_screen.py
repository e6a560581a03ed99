"""A job on a terminal, a real one of its own, and in a log: what a person sees of it."""

import codecs
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pyte
import pytest
from jobs_at_work import JOBS, OPTIONS, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COLUMNS, ROWS = 100, 30
SMALL = ["--preset", "small", *OPTIONS, "--search.eval-images", "50", "--replay.subsample", "0.2"]
# What Ray and the libraries below it begin lines with, where nobody asked for them.
CHATTER = re.compile(r"WARNING|INFO|DEBUG|\[\d{4}-|\d{4}-\d\d-\d\d \d\d:|\(pid=|pid=\d+\)|Traceback|Warning:")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> str:
    """All that a job wrote to its terminal."""
    place = ["--storage", str(tmp_path_factory.mktemp("runs")), "--name", "shown"]
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    terminal, other_end = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    job = subprocess.Popen(
        [sys.executable, str(JOBS / "ice_prune.py"), *SMALL, *place],
        stdin=other_end, stdout=other_end, stderr=other_end, cwd=ROOT, env=environment | {"TERM": "xterm"},
        start_new_session=True,
    )  # fmt: skip
    os.close(other_end)
    text, decoder = [], codecs.getincrementaldecoder("utf-8")()
    while piece := read(terminal):
        text.append(decoder.decode(piece))
    assert job.wait() == 0, "".join(text)
    return "".join(text)


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # so Linux says that nobody has it open any more
        return b""


def left(text: str) -> list[str]:
    """What is on the screen, and has gone off its top, in the end."""
    screen = pyte.HistoryScreen(COLUMNS, ROWS, history=1000)
    pyte.Stream(screen).feed(text)
    above = ["".join(line[column].data for column in range(COLUMNS)) for line in screen.history.top]
    return [line.rstrip() for line in [*above, *screen.display] if line.strip()]


def test_a_terminal_shows_what_the_job_is_at(written):
    places = [written.index(what) for what in (
        "looking at the model and the data,", "starting Ray,", "training the dense model,",
        "stage 1: original accuracy, calibration,", "stage 1: 0/2 trials done, starting;",
        "stage 2: starting;", "assessment,",
    )]  # fmt: skip
    assert places == sorted(places)


def test_in_the_end_only_lines_that_stay_are_left(written):
    lines = left(written)
    assert not [line for line in lines if re.search(r"so far|, \d+ (s|min)$", line)]
    assert not [line for line in lines if CHATTER.search(line)]
    assert [line.split(":")[0] for line in lines if line.startswith("stage")] == ["stage 1", "stage 2"]
    assert lines[-1].startswith("  report in ")
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h")  # the cursor is back


def test_lines_are_broken_between_words_and_tables_fit(written):
    lines = left(written)
    joined = re.sub(r"\s+", " ", " ".join(lines))
    assert re.search(r"winner: trial \d \[theta [^]]+\]: the fastest \(\d+\.\d\d s\) of the \d whose drop is", joined)
    top, bottom = (next(number for number, line in enumerate(lines) if line.startswith(each)) for each in "┏└")
    assert len({len(line) for line in lines[top : bottom + 1]}) == 1


def test_a_log_has_a_line_for_each_event(finished):
    run, printed = finished
    assert (run.parent / "complaints").read_text() == ""
    lines = printed.splitlines()
    assert all(line.isprintable() for line in lines)
    assert not [line for line in lines if CHATTER.search(line)]
    told = [line for line in lines if line[:1] not in "┏┃┡│└"]
    second = next(number for number, line in enumerate(told) if line.startswith("stage 2"))
    for part in (told[:second], told[second:]):
        assert len(part) == len(set(part))  # nothing is said twice
    assert sum(line.startswith("  trial-") for line in told) == 2
    assert all(line.endswith("]") for line in told if line.startswith("  trial-"))
