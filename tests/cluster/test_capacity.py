"""What a cluster of several nodes with logical GPUs holds, counted and tried."""

import os

import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from ice_ray.cluster.capacity import Request, check_possible, placements, sharers
from ice_ray.cluster.session import fetch
from ice_ray.cluster.workload import own_device
from ice_ray.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    """A head without room, a node of four CPUs and two GPUs, and one of two CPUs and one GPU."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.add_node(num_cpus=4, num_gpus=2)
    cluster.add_node(num_cpus=2, num_gpus=1)
    ray.init(address=cluster.address)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.parametrize(
    ("cpus", "gpus", "held", "on_one"),
    [
        (1, 1.0, 3, 1),
        (1, 0.5, 6, 2),
        (1, 0.25, 6, 2),
        (0.5, 0.25, 12, 4),
        (2, 0.5, 3, 1),
        (1, 0.0, 6, 4),
        (3, 0.0, 1, 1),
    ],
)
def test_how_many_fit_and_how_many_share_a_device(cluster, cpus, gpus, held, on_one):
    """Counted by hand: a node's CPUs limit as its GPUs do."""
    assert placements(cpus, gpus) == held
    assert sharers(cpus, gpus) == on_one


def test_so_many_run_at_once_and_on_both_nodes(cluster):
    """Six halves of a GPU: each waits for the others, so that none runs unless all do."""

    @ray.remote(num_cpus=1, num_gpus=0.5)
    class Half:
        def place(self) -> tuple[str, str]:
            return ray.get_runtime_context().get_node_id(), os.environ["CUDA_VISIBLE_DEVICES"]

    halves = [Half.remote() for _ in range(placements(1, 0.5))]
    places = ray.get([half.place.remote() for half in halves], timeout=120)
    assert sorted(places.count(place) for place in set(places)) == [2, 2, 2]
    assert len({node for node, _ in places}) == 2
    for half in halves:
        ray.kill(half)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_none_is_one_line(cluster):
    asked = ray.remote(num_gpus=0.5)(own_device).remote(1.0, 0.5)
    with pytest.raises(UserError, match="torch finds none there"):
        fetch(asked)


def test_what_will_never_fit_is_refused_with_what_there_is(cluster):
    check_possible(Request("stage 1", 1, 0.5, 6))
    with pytest.raises(UserError, match=r"7 x \(1 CPUs, 0.5 GPUs\); the cluster has 6 CPUs and 3 GPUs .* room for 6"):
        check_possible(Request("stage 1", 1, 0.5, 7))
    with pytest.raises(UserError, match="room for 0"):
        check_possible(Request("stage 2", 5, 1))
