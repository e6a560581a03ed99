"""A cluster that scales from nothing: real nodes of Ray's own fake provider, added and refused as the types allow."""

import sys

import pytest
from own_head import running_head

from ice_ray.cluster.capacity import Autoscaler, NodeType

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

COMMANDS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
CLUSTER = {
    "cluster_name": "scales",
    "max_workers": 2,
    "idle_timeout_minutes": 5,
    "upscaling_speed": 2,
    "provider": {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "foreground_node_launch": True,
    },
    "auth": {"ssh_user": "nobody"},
    "file_mounts": {},
    "docker": {},
    **{f"{kind}_commands": [] for kind in COMMANDS},
    "cluster_synced_files": [],
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "gpu": {"resources": {"CPU": 2, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
    "head_node_type": "ray.head.default",
}
DRIVER = """
import ray
from ice_ray.cluster.capacity import Request, cluster_gpus, has_gpus, placements, provide, wanted
from ice_ray.cluster.session import ray_session
from ice_ray.errors import RunError, UserError

with ray_session():
    print("at first", cluster_gpus(), has_gpus())
    provide(Request("a trial", 1, 0.5), 5, print)
    for minutes, request in ((5, Request("too much", 1, 1, 3)), (0.0001, Request("too soon", 2, 1, 2))):
        try:
            provide(request, minutes, print)
        except (UserError, RunError) as error:
            print(type(error).__name__, error)
    with wanted(Request("trials", 2, 1, 5)):
        provide(Request("two workers", 2, 1, 2), 5, print)
    print("at last", placements(2, 1), placements(1, 0.5))
"""


def test_it_waits_for_what_can_come_and_refuses_what_cannot():
    with running_head(0, CLUSTER) as head:
        ended = head.run("env", f"RAY_ADDRESS={head.address}", sys.executable, "-c", DRIVER)
    said = ended.stdout
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "at first 0.0 True" in said
    assert "UserError too much asks for 3 x (1 CPUs, 1 GPUs)" in said
    assert "the node types' maxima allow 2" in said
    assert "too soon asks for 2 x (2 CPUs, 1 GPUs)" in said
    assert "RunError too soon" in said
    assert "a trial asks for 1 x (1 CPUs, 0.5 GPUs); the cluster has 0 CPUs" in said
    assert "at last 2 4" in said


def test_what_a_type_allows():
    small, large = NodeType({"CPU": 8, "GPU": 1}, 3), NodeType({"CPU": 4, "GPU": 4}, 1)
    autoscaler = Autoscaler((small, large))
    assert autoscaler.most_placements(1, 0.5) == 3 * 2 + 4
    assert autoscaler.most_placements(8, 0) == 3
    assert autoscaler.most_gpus() == 7
    assert Autoscaler(None).most_placements(1, 1) is None
