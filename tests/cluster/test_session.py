"""Where a cluster is said to be and nobody answers, a job ends at once, in one line."""

import os
import socket

import pytest
import ray

from ice_ray.cluster.session import ray_session
from ice_ray.errors import UserError


@pytest.fixture
def silent() -> str:
    """An address that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def fault() -> str:
    with pytest.raises(UserError) as caught, ray_session():
        pass
    assert not ray.is_initialized()
    return str(caught.value)


def test_a_cluster_that_is_named(monkeypatch, silent):
    monkeypatch.setenv("RAY_ADDRESS", silent)
    assert fault() == f"the cluster that RAY_ADDRESS names, {silent}, does not answer (Connection refused)"


def test_a_cluster_that_was_killed_and_left_its_address(monkeypatch, silent, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    left = tmp_path / "ray" / "ray_current_cluster"
    left.parent.mkdir()
    left.write_text(silent)
    assert fault() == (
        f"the cluster last started here, {silent}, does not answer (Connection refused): `ray stop` forgets it, "
        "RAY_ADDRESS=local does without"
    )


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://head:10001"])
def test_a_server_s_address_is_no_cluster_s(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert "submit the job there" in fault()


@pytest.mark.slow
def test_workers_of_a_ray_of_its_own_are_no_less_urgent_than_the_job(monkeypatch):
    """Ray would start them at 15: beside other busy processes they would get next to nothing."""
    monkeypatch.setenv("RAY_ADDRESS", "local")

    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, 0)

    with ray_session():
        assert ray.get(ray.remote(num_cpus=0)(priority).remote()) == priority()
