"""cluster.yaml against Ray's own schema, and what that schema does not see."""

from pathlib import Path

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

CONFIG = yaml.safe_load((Path(__file__).parent.parent / "cluster.yaml").read_text())


def test_ray_accepts_it():
    validate_config(prepare_config(CONFIG))


def test_workers_scale_and_trials_do_not_land_on_the_head():
    types = CONFIG["available_node_types"]
    assert types["gpu"]["min_workers"] < types["gpu"]["max_workers"] <= CONFIG["max_workers"]
    assert types[CONFIG["head_node_type"]]["resources"] == {"CPU": 0}
    assert types["gpu"]["resources"]["GPU"] >= 1


def test_authentication_is_on_and_the_dashboard_is_not_open():
    starts = [*CONFIG["head_start_ray_commands"], *CONFIG["worker_start_ray_commands"]]
    started = [command for command in starts if "ray start" in command]
    assert len(started) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in started)
    assert "--dashboard-host=127.0.0.1" in started[0]
