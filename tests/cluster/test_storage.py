"""A node that does not see where the run is kept ends the job in one line, whether it was there or joins later."""

import signal
import time

import pytest
import ray
from ray.cluster_utils import Cluster

from ice_ray.address import storage_path
from ice_ray.cluster.storage import seen_by_all, unseen_from
from ice_ray.errors import RunError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(bucket):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    ray.init(address=cluster.address)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_folder_that_nodes_do_not_share(cluster, tmp_path):
    """One machine's nodes see the same files, so what they do not see is a file that has gone."""
    with seen_by_all(storage_path(tmp_path)):
        pass
    assert not list(tmp_path.iterdir())
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    with seen_by_all(storage_path(tmp_path)):
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        (token,) = tmp_path.iterdir()
        assert unseen_from(storage_path(tmp_path), token.read_text(), nodes) == ""
        assert "mount one folder there on all nodes" in unseen_from(storage_path(tmp_path), "another", nodes)


@pytest.fixture
def in_the_background():
    """As a script starts jobs: without ears for Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_node_that_joins_late(cluster, tmp_path, in_the_background):
    with pytest.raises(RunError, match="does not see"), seen_by_all(storage_path(tmp_path)):
        next(tmp_path.iterdir()).write_text("of another folder")
        cluster.add_node(num_cpus=1)
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            time.sleep(0.2)


def test_an_interruption_stays_one(cluster, tmp_path):
    with pytest.raises(KeyboardInterrupt), seen_by_all(storage_path(tmp_path)):
        raise KeyboardInterrupt


def test_an_address_that_all_nodes_reach(cluster, bucket):
    with seen_by_all(bucket / "seen"):
        (token,) = (bucket / "seen").iterdir()
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        assert unseen_from(bucket / "seen", token.read_text(), nodes) == ""
    assert not (bucket / "seen" / ".token").exists()


def test_an_address_that_one_node_does_not_reach(cluster, bucket):
    """Its processes look for the store at a port where nobody listens."""
    node = cluster.add_node(num_cpus=1, env_vars={"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    cluster.wait_for_nodes()
    try:
        with (
            pytest.raises(RunError, match=r"does not see 's3://bucket/seen': give all nodes credentials for it"),
            seen_by_all(bucket / "seen"),
        ):
            pass
    finally:
        cluster.remove_node(node)
