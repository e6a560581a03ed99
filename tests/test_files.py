"""What is written is whole or not there, and storage that refuses for a moment is asked again. On real disks."""

import errno
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
import torch

from ice_ray import retry
from ice_ray.address import storage_path
from ice_ray.cache.storage import ActionLog
from ice_ray.errors import StorageError
from ice_ray.files import write_json, write_text
from ice_ray.retry import retries_that_helped, with_retries
from ice_ray.tensor_files import write_tensors


@pytest.fixture
def disk(tmp_path):
    """One of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs a disk that can be filled: mounting a tmpfs takes root's rights")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(autouse=True)
def _count_from_zero():
    retries_that_helped()


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(1024)):
            pass
    return ballast


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_does_not_fit_leaves_what_was_there_and_no_trace(disk, monkeypatch):
    write_text(disk / "a", "old")
    fill(disk)
    monkeypatch.setattr(retry, "_PAUSES", (0.01,))
    for write in (
        lambda: write_json(disk / "a", ["new"] * 10_000),
        lambda: write_tensors(disk / "a", {"w": torch.zeros(100_000)}),
    ):
        with pytest.raises(StorageError, match=r"cannot write '.*/a' .No space left on device."):
            write()
    assert (disk / "a").read_text() == "old"
    assert names(disk) == {"a", "ballast"}
    assert retries_that_helped() == 0


def test_room_that_is_made_meanwhile_is_used(disk, caplog):
    ballast = fill(disk)
    threading.Timer(1.0, ballast.unlink).start()
    write_tensors(disk / "a", {"w": torch.zeros(100_000)})
    assert names(disk) == {"a"}
    assert "No space left on device); trying again in" in caplog.text
    assert retries_that_helped() == 1
    assert retries_that_helped() == 0


@pytest.mark.skipif(shutil.which("chattr") is None, reason="needs chattr")
def test_a_folder_that_is_closed_for_a_moment(disk):
    close, reopen = (["chattr", flag, str(disk)] for flag in ("+i", "-i"))
    subprocess.run(close, check=True)
    threading.Timer(1.0, subprocess.run, [reopen]).start()
    write_json(disk / "a", {})
    assert (disk / "a").read_text() == "{}\n"
    assert retries_that_helped() == 1


def test_a_line_that_half_fits_is_not_the_end_of_the_file(disk):
    storage_path(disk / "log").append_line("first")
    ballast = fill(disk)
    threading.Timer(1.0, ballast.unlink).start()
    storage_path(disk / "log").append_line("x" * 50_000)
    storage_path(disk / "log").append_line("last")
    lines = storage_path(disk / "log").lines()
    assert lines[0] == "first"
    assert "x" * 50_000 in lines
    assert lines[-2:] == ["last", ""]


def test_what_does_not_pass_is_not_waited_for(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "nowhere" / "a", "")
    asked = []

    def attempt() -> None:
        asked.append(1)
        raise OSError(errno.ENAMETOOLONG, "File name too long")

    with pytest.raises(OSError, match="too long"):
        with_retries("cannot", attempt)
    assert len(asked) == 1


def test_lines_that_are_no_text_are_passed_over(tmp_path):
    (tmp_path / "log").write_bytes(b'"a"\n\xff\xfe\n{"Deed": []}\n5\n')
    assert storage_path(tmp_path / "log").lines() == ['"a"', '{"Deed": []}', "5", ""]
    assert ActionLog(tmp_path / "log").load() == []


def test_text_comes_back_as_it_was_written(tmp_path):
    write_text(tmp_path / "file", "one\r\ntwo\rthree\n")
    assert storage_path(tmp_path / "file").read_text() == "one\r\ntwo\rthree\n"
