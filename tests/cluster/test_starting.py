"""A Ray that cannot be joined or started: one line with the cause and the mend."""

import subprocess
import sys

import pytest
import ray
from own_head import ROOT, running_head

from ice_ray.cluster import session
from ice_ray.cluster.faults import ended_by
from ice_ray.cluster.session import ray_session
from ice_ray.errors import RunError, UserError

SCRIPT = """
import sys
from pathlib import Path
from ice_ray.cluster.session import ray_session
from ice_ray.config.run import RunConfig
from ice_ray.workflow.running import run

def job(config):
    import ray
    @ray.remote(num_cpus=0)
    def read():
        import sys
        return Path("note.txt").read_text(), "/only/mine" in sys.path or any("mine-too" in path for path in sys.path)
    with ray_session():
        print(*ray.get(read.remote()))

raise SystemExit(run(job, RunConfig, "p", []))
"""


@pytest.mark.parametrize("address", ["localhost", "head:", ":6379", "head:port", "head:0", "head:99999", "6379", "a b"])
def test_an_address_that_is_none(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with (
        pytest.raises(UserError, match=f"RAY_ADDRESS is '{address}', which is no address of a cluster: give HOST:PORT"),
        ray_session(),
    ):
        pass
    assert not ray.is_initialized()


def test_a_host_that_no_name_server_knows(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", f"{'x' * 70}..invalid:6379")
    with pytest.raises(UserError, match="does not answer"), ray_session():
        pass


def test_a_temporary_folder_with_too_long_a_path(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 20)))
    with pytest.raises(UserError, match="a path too long for them: set a shorter RAY_TMPDIR"), ray_session():
        pass
    assert capfd.readouterr().err == ""


def test_faults_of_libraries_keep_their_text():
    assert ended_by(ConnectionError("no route to it\nat all")) == ("ConnectionError: no route to it at all", 1)
    assert ended_by(OSError("AF_UNIX path length")) == ("OSError: AF_UNIX path length", 1)
    assert ended_by(FileNotFoundError(2, "No such file", "x")) == ("'x': No such file", 1)
    assert ended_by(ray.exceptions.RaySystemError("the store is full")) == (
        "RaySystemError: System error: the store is full",
        1,
    )
    carried = RuntimeError("a library's")
    carried.__cause__ = RunError("ours")
    assert ended_by(carried) == ("ours", 1)
    assert ended_by(RuntimeError("nobody knows")) is None


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_head_that_wants_a_token_and_one_that_was_started_elsewhere(tmp_path):
    (tmp_path / "note.txt").write_text("found")
    (tmp_path / "mine-too").mkdir()
    with running_head(1) as head:

        def said(**environment):
            own = {**head.environment, "RAY_ADDRESS": head.address, "PYTHONPATH": f"{ROOT}:{tmp_path / 'mine-too'}"}
            own |= environment
            command = [sys.executable, "-c", SCRIPT]
            done = subprocess.run(command, env=own, cwd=tmp_path, capture_output=True, text=True, check=False)
            return done.returncode, done.stdout, done.stderr

        code, out, err = said()
        assert (code, out.splitlines()[1:], err) == (0, ["found True"], "")  # after what the job is about to do
        code, _, err = said(RAY_AUTH_MODE="")
        assert (code, err.count("\n")) == (2, 1) and "wants a token: set RAY_AUTH_MODE=token" in err
        code, _, err = said(HOME=str(tmp_path))
        assert (code, err.count("\n")) == (2, 1) and "does not take this token, or there is none" in err


def test_a_server_that_is_no_cluster_s_does_not_go_unnamed():
    """What Ray makes of one takes it a while: here, what is made of that."""
    from ice_ray.cluster.session import _why

    fault = _why(ConnectionError("Failed to connect to Ray cluster at 127.0.0.1:1"), "127.0.0.1:1", "")
    assert isinstance(fault, UserError) and "is no Ray cluster that this process can join" in str(fault)
    mismatch = RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9\nThis process: 2.60")
    assert "another Ray or Python runs the cluster" in str(_why(mismatch, "a:1", ""))
    assert "Ray cannot start here (ValueError: no memory)" in str(_why(ValueError("no memory"), "", ""))


def test_standard_error_may_be_closed(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with session._held_back(False) as heard:
        assert heard() == ""
