"""Claims in a folder and in a bucket: held by one, refused to others, taken over from the lost, given back."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ice_ray.address import StoragePath
from ice_ray.claims import claim, swap
from ice_ray.claims.claim import HeldError, claim_of, claimed, refuse_held
from ice_ray.claims.owner import Owner
from ice_ray.errors import RunError

CONTENDER = Path(__file__).parent / "contender.py"
CONTENDERS = 4
HELD = "from ice_ray.claims.owner import Owner; print(Owner.here('job').content.decode(), flush=True); input()"


@pytest.fixture(params=["folder", "bucket"])
def storage(request, tmp_path) -> StoragePath:
    """A place of each kind."""
    if request.param == "folder":
        return tmp_path / "runs"
    return request.getfixturevalue("bucket") / tmp_path.name


@pytest.fixture(scope="session")
def dead() -> Owner:
    """A process that was killed while it held something."""
    process = subprocess.Popen([sys.executable, "-c", HELD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    owner = Owner.of(process.stdout.readline())
    assert owner is not None and owner.state == "alive"
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    return owner


@pytest.fixture
def hasty(monkeypatch):
    """Signs and patience in tenths of seconds."""
    monkeypatch.setattr(claim, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(claim, "LOST_SECONDS", 2.0)
    monkeypatch.setattr(swap, "LOST_SECONDS", 2.0)


def leave(run: StoragePath, owner: Owner) -> None:
    """A claim as a killed job leaves it."""
    if isinstance(run, Path):
        run.mkdir(parents=True)
    claim_of(run).write_bytes(owner.content)


def names(run: StoragePath) -> list[str]:
    return sorted(each.name for each in run.iterdir()) if run.is_dir() else []


def is_gone(run: StoragePath) -> bool:
    """With the folders made for it; in a bucket pyarrow leaves marks of where objects have been."""
    return not run.parent.exists() if isinstance(run, Path) else not names(run)


def elsewhere(owner: Owner, **others) -> Owner:
    return dataclasses.replace(owner, host="elsewhere", within="another host", **others)


def test_one_holds_it_and_others_are_told_who(storage):
    run = storage / "run"
    with claimed(run, "ice_prune.py", print):
        with pytest.raises(HeldError) as refusal, claimed(run, "ice_prune.py", print):
            pass
        assert f"being written by ice_prune.py (process {os.getpid()} on host " in str(refusal.value)
        with pytest.raises(HeldError):
            refuse_held(run)
        with claimed(storage / "other", "ice_prune.py", print):
            pass
    refuse_held(run)
    with claimed(run, "ice_prune.py", print):
        pass
    assert is_gone(storage / "run")


def test_what_was_put_there_stays_and_no_trace_of_the_claim(storage):
    with claimed(storage / "run", "job", print):
        (storage / "run" / "a").write_bytes(b"")
    assert names(storage / "run") == ["a"]


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit])
def test_it_is_given_back_however_the_job_ends(storage, fault):
    with pytest.raises(fault), claimed(storage / "run", "job", print):
        raise fault
    assert is_gone(storage / "run")


def test_of_a_process_that_is_gone_it_is_taken_over_at_once(storage, dead):
    leave(storage / "run", dead)
    (storage / "run" / f".claim.sign-{dead.id}").write_bytes(b"")
    began = time.monotonic()
    with claimed(storage / "run", "job", pytest.fail):
        assert time.monotonic() - began < 5
    assert not names(storage / "run")


def test_a_number_that_another_process_has_by_now_is_not_its_owner(storage):
    leave(storage / "run", dataclasses.replace(Owner.here("job"), began="1"))
    with claimed(storage / "run", "job", pytest.fail):
        pass


def test_of_another_host_it_is_taken_over_when_no_sign_comes(storage, dead, hasty):
    leave(storage / "run", elsewhere(dead))
    said: list[str] = []
    with claimed(storage / "run", "job", said.append):
        pass
    (line,) = said
    assert f"job (process {dead.pid} on host elsewhere, since" in line and "waiting 2 s" in line


def test_of_another_host_it_is_not_taken_over_while_signs_come(storage, dead, hasty):
    owner = elsewhere(dead)
    leave(storage / "run", owner)
    sign, done = storage / "run" / f".claim.sign-{owner.id}", threading.Event()

    def live() -> None:
        number = 0
        while not done.wait(0.3):
            number += 1
            sign.write_bytes(f"{number}".encode())

    living = threading.Thread(target=live)
    living.start()
    try:
        with pytest.raises(HeldError, match="on host elsewhere"), claimed(storage / "run", "job", print):
            pass
    finally:
        done.set()
        living.join()


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff"])
def test_a_damaged_claim_is_waited_for_and_taken_over(storage, content, hasty):
    leave(storage / "run", Owner.here("job"))
    claim_of(storage / "run").write_bytes(content)
    with claimed(storage / "run", "job", print):
        assert Owner.of(claim_of(storage / "run").read_bytes())


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nowhere"])
@pytest.mark.timeout(20)
def test_what_has_the_name_of_a_claim_and_is_none(tmp_path, kind):
    run = tmp_path / "run"
    run.mkdir()
    if kind == "folder":
        (run / ".claim").mkdir()
    elif kind == "pipe":
        os.mkfifo(run / ".claim")
    else:
        (run / ".claim").symlink_to("/nowhere/at/all")
    with pytest.raises(OSError, match=r"no file, as a claim is: remove it.*\.claim"), claimed(run, "job", print):
        pass
    assert len(names(run)) == 1


def test_a_run_under_two_paths_is_one(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with claimed(tmp_path / "real" / "run", "job", print), pytest.raises(HeldError):
        refuse_held(tmp_path / "link" / "run")


def test_a_fork_of_its_process_does_not_give_it_back(tmp_path):
    """One that raises, as the user's code may, leaves the block a second time."""
    held = claimed(tmp_path / "run", "job", print)
    held.__enter__()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            held.__exit__(None, None, None)
        os._exit(0)
    os.waitpid(child, 0)
    assert claim_of(tmp_path / "run").is_file()
    held.__exit__(None, None, None)
    assert not (tmp_path / "run").exists()


def test_a_job_that_lost_its_claim_ends_in_one_line(storage, dead, hasty):
    """As where it slept for an hour, and another host went on. What the other holds stays."""
    successor = elsewhere(dead, id="0123456789abcdef")
    began = time.monotonic()
    with (
        pytest.raises(RunError, match=r"ice_prune.py .process \d+ on host elsewhere, .* has taken it over"),
        claimed(storage / "run", "ice_search.py", print),
    ):
        claim_of(storage / "run").write_bytes(dataclasses.replace(successor, program="ice_prune.py").content)
        time.sleep(30)
    assert time.monotonic() - began < 10
    assert names(storage / "run") == [".claim"]


def test_a_run_that_was_removed_ends_its_job(storage, hasty):
    with pytest.raises(RunError, match="its claim has been removed"), claimed(storage / "run", "job", print):
        claim_of(storage / "run").unlink()
        time.sleep(30)


def test_a_lost_claim_is_found_where_nothing_can_be_interrupted(storage, hasty):
    """In a thread other than the main one."""
    raised: list[BaseException] = []

    def job() -> None:
        with claimed(storage / "run", "job", print) as own:
            claim_of(storage / "run").write_bytes(Owner.here("another").content)
            deadline = time.monotonic() + 30
            try:
                while time.monotonic() < deadline:
                    own.check()
                    time.sleep(0.1)
            except RunError as error:
                raised.append(error)

    thread = threading.Thread(target=job)
    with suppress(KeyboardInterrupt):  # nobody's block is interruptible
        thread.start()
        thread.join()
    assert "has taken it over" in str(raised[0])


def test_a_stopped_process_is_alive(tmp_path):
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from ice_ray.claims.owner import Owner; print(Owner.here('x').content.decode(), flush=1); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        owner = Owner.of(process.stdout.readline())
        os.kill(process.pid, signal.SIGSTOP)
        assert owner is not None and owner.state == "alive"
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    assert owner.state == "gone"


@pytest.mark.parametrize("lost", [False, True], ids=["free", "of a killed job"])
@pytest.mark.timeout(600)
def test_of_processes_that_race_exactly_one_wins(storage, dead, lost, tmp_path):
    rounds = 50 if isinstance(storage, Path) else 10
    notes = tmp_path / "notes"
    notes.mkdir()
    for number in range(rounds * lost):
        leave(storage / f"{number}", dead)
    words = [sys.executable, str(CONTENDER), str(storage), str(notes)]
    processes = [
        subprocess.Popen([*words, str(own), str(CONTENDERS), str(rounds)], stderr=subprocess.PIPE, text=True)
        for own in range(CONTENDERS)
    ]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * CONTENDERS, said
    winners = [len(list(notes.glob(f"won-{number}-*"))) for number in range(rounds)]
    assert winners == [1] * rounds
    assert not any(names(storage / f"{number}") for number in range(rounds))
    assert not isinstance(storage, Path) or not storage.exists() or not list(storage.iterdir())


def test_of_threads_that_race_exactly_one_wins(storage):
    rounds = 50 if isinstance(storage, Path) else 10
    for number in range(rounds):
        start, told, won = threading.Barrier(CONTENDERS), threading.Barrier(CONTENDERS), []

        def contend(number=number, start=start, told=told, won=won) -> None:
            start.wait()
            try:
                with claimed(storage / f"{number}", "job", print):
                    won.append(number)
                    told.wait()
            except HeldError:
                told.wait()

        threads = [threading.Thread(target=contend) for _ in range(CONTENDERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
