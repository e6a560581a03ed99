"""The files of a run at an address, on a server that speaks S3: as in a folder, whatever is done with them."""

import hashlib
import socket
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from object_storage import new_server

from ice_ray.address import storage_path
from ice_ray.errors import StorageError, UserError
from ice_ray.files import sha256, write_json, write_text
from ice_ray.models.weights import load_state_dict
from ice_ray.retry import retries_that_helped
from ice_ray.tensor_files import write_tensors

FOLDERS, FILES = st.sampled_from(["a", "b"]), st.sampled_from(["x.json", "y.safetensors", "z"])
RECORDS = st.one_of(
    st.tuples(st.just("write"), FOLDERS, FILES, st.text(max_size=20)),
    st.tuples(st.just("append"), FOLDERS, st.just("log"), st.text("abc ", max_size=20)),
    st.tuples(st.just("unlink"), FOLDERS, FILES),
    st.tuples(st.just("remove"), FOLDERS),
)


def do(root, deed) -> None:
    kind, folder, *rest = deed
    if kind == "write":
        (root / folder).make_folder()
        write_text(root / folder / rest[0], rest[1])
    elif kind == "append":
        (root / folder).make_folder()
        (root / folder / rest[0]).append_line(rest[1])
    elif kind == "unlink":
        (root / folder / rest[0]).unlink(missing_ok=True)
    else:
        (root / folder).remove_folder()


def seen(root) -> dict[str, object]:
    """All that a run asks of its storage."""
    found: dict[str, object] = {}
    for folder in ("a", "b"):
        files = [path for path in (root / folder).glob("[x-z]*") if path.is_file()] if (root / folder).is_dir() else []
        found[folder] = {path.name: (path.read_text(), path.read_now(), sha256(path), path.size()) for path in files}
        found[f"{folder} json"] = [path.stem for path in files if path.suffix == ".json"]
        # Once a folder is empty it may be there or not.
        found[f"{folder} lines"] = [line for line in (root / folder / "log").lines() if line]
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deeds=st.lists(RECORDS, max_size=8))
def test_whatever_is_done_an_address_holds_what_a_folder_holds(bucket, tmp_path_factory, deeds):
    folder = storage_path(tmp_path_factory.mktemp("root"))
    address = bucket / folder.name
    for deed in deeds:
        do(folder, deed)
        do(address, deed)
    assert seen(address) == seen(folder)


def test_what_is_not_there(bucket):
    nothing = bucket / "nothing"
    assert not nothing.exists()
    assert not nothing.is_file()
    assert not nothing.is_dir()
    assert list(nothing.glob("*")) == []
    assert nothing.lines() == []
    for read in (nothing.read_bytes, nothing.read_now, nothing.unlink, lambda: sha256(nothing)):
        with pytest.raises(FileNotFoundError) as fault:
            read()
        assert fault.value.filename == str(nothing)
    nothing.remove_folder()


def test_a_write_that_fails_leaves_what_was_there(bucket):
    path = bucket / "whole" / "a.txt"
    write_text(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half of")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        path.write_whole(fail)
    assert path.read_text() == "old"
    path.write_whole(lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new"
    assert [each.name for each in path.parent.iterdir()] == ["a.txt"]


def test_tensors_come_back(bucket):
    path = bucket / "tensors" / "w.safetensors"
    large = {"w": torch.arange(3_000_000, dtype=torch.float32), "b": torch.zeros(3)}  # more than one part's 5 MB
    write_tensors(path, large)
    found = load_state_dict(path)
    assert all(torch.equal(found[key], large[key]) for key in large)
    with path.on_disk() as file, path.parent.on_disk() as folder:
        assert file.read_bytes() == (folder / path.name).read_bytes()
        assert sha256(path) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert not file.exists()


def test_lines_that_many_write_are_all_there_each_writer_s_in_its_order(bucket):
    path = bucket / "many" / "log.jsonl"
    writers = [
        threading.Thread(target=lambda name=name: [path.append_line(f"{name} {count}") for count in range(20)])
        for name in "abcd"
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = [line.split() for line in path.lines() if line]
    assert len(found) == 80
    for name in "abcd":
        assert [int(count) for own, count in found if own == name] == list(range(20))


def test_lines_that_lay_in_a_file_before_come_first(bucket):
    """A run that was copied from a folder goes on at its address."""
    path = bucket / "copied" / "log.jsonl"
    path.write_bytes(b"one\ntwo\nhal")
    path.append_line("three")
    assert path.lines()[:2] == ["one", "two"]
    assert "three" in path.lines()


@contextmanager
def elsewhere(**variables: str):
    """A server of its own, which is reached by the address alone."""
    server = new_server()
    with server.running("kept", **variables):
        yield server, storage_path(f"s3://kept/runs?endpoint_override=127.0.0.1:{server.port}&scheme=http")


def forward(listening: socket.socket, port: int) -> None:
    """Every connection goes on to another port."""

    def carry(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while content := one.recv(65536):
                other.sendall(content)
            other.shutdown(socket.SHUT_WR)

    with suppress(OSError):  # it has been closed
        while True:
            here, there = listening.accept()[0], socket.create_connection(("127.0.0.1", port))
            for pair in ((here, there), (there, here)):
                threading.Thread(target=carry, args=pair, daemon=True).start()


def test_a_store_that_is_away_for_a_moment_is_waited_for(bucket, caplog):
    """There is nobody at its port at first."""
    retries_that_helped()
    with elsewhere() as (server, _), socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        address = storage_path(f"s3://kept/runs?endpoint_override=127.0.0.1:{port.getsockname()[1]}&scheme=http")
        opening = threading.Timer(8, lambda: (port.listen(), forward(port, server.port)))
        opening.daemon = True
        opening.start()
        write_json(address / "a", {})
        assert (address / "a").read_text() == "{}\n"
        port.shutdown(socket.SHUT_RDWR)
    assert retries_that_helped() == 1
    assert "cannot write" in caplog.text


def test_what_cannot_be_used_is_said_at_once(bucket):
    (bucket / "new").check("--storage")
    with pytest.raises(UserError, match=r"--storage 's3://another/runs' cannot be used \(no such bucket\)$"):
        storage_path("s3://another/runs").check("--storage")
    silent = storage_path(f"s3://bucket/runs?endpoint_override=127.0.0.1:{new_server().port}&scheme=http")
    started = time.monotonic()
    with pytest.raises(UserError, match=r"--storage '.*' cannot be used \(NETWORK_CONNECTION.*is it up"):
        silent.check("--storage")
    assert time.monotonic() - started < 25
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        silent.read_now()


def test_wrong_credentials_are_refused(bucket, monkeypatch):
    monkeypatch.setattr("ice_ray.retry._PAUSES", (0.01,))
    with elsewhere(INITIAL_NO_AUTH_ACTION_COUNT="2") as (_, address):  # enough to make the bucket
        with pytest.raises(UserError, match="access denied; the store's own variables"):
            address.check("--storage")
        with pytest.raises(StorageError, match=r"cannot write '.*' \(access denied\)"):
            write_text(address / "a", "")
