"""cluster.yaml against Ray's own schema, and what that schema does not see."""

from pathlib import Path

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from ice_ray.cluster import capacity

TEXT = (Path(__file__).parent.parent / "cluster.yaml").read_text()
CONFIG = yaml.safe_load(TEXT)


def test_ray_accepts_it():
    validate_config(prepare_config(CONFIG))


def test_workers_scale_and_trials_do_not_land_on_the_head():
    types = CONFIG["available_node_types"]
    assert types["gpu"]["min_workers"] == 0 < types["gpu"]["max_workers"] <= CONFIG["max_workers"]
    assert CONFIG["idle_timeout_minutes"] > 0
    assert types[CONFIG["head_node_type"]]["resources"] == {"CPU": 0}
    assert types["gpu"]["resources"]["GPU"] >= 1


def test_authentication_is_on_and_the_dashboard_is_not_open():
    starts = [*CONFIG["head_start_ray_commands"], *CONFIG["worker_start_ray_commands"]]
    started = [command for command in starts if "ray start" in command]
    assert len(started) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in started)
    assert "--dashboard-host=127.0.0.1" in started[0]


def test_every_node_mounts_the_storage_and_installs_the_checkout_s_pins():
    commands = CONFIG["setup_commands"]
    mount = next(command for command in commands if " mount -t nfs4 " in command)
    assert mount.endswith(":/ /shared")
    install = next(command for command in commands if "uv sync --no-dev" in command)
    assert commands.index(mount) < commands.index(install)
    checkout = install.split()[1]
    assert CONFIG["file_mounts"][checkout] == "."
    assert f"{checkout}/.venv/bin:$PATH RAY_AUTH_MODE=token" in commands[-1]
    assert "/home/ubuntu/.ray/auth_token" in CONFIG["file_mounts"]


def test_its_autoscaler_s_types_are_understood(tmp_path, monkeypatch):
    """As the job reads them on the head."""
    monkeypatch.setattr(capacity, "BOOTSTRAP_CONFIG", str(tmp_path / "config.yaml"))
    (tmp_path / "config.yaml").write_text(TEXT)
    declared = capacity.Autoscaler(capacity.declared_types())
    assert declared.most_placements(1, 0.5) == 16
    assert declared.most_placements(8, 1) == 8
    assert declared.most_placements(9, 1) == 0
    assert declared.most_gpus() == 8


def test_what_changes_on_google_cloud_is_marked_in_three_places():
    assert [f"GCP {number}:" in TEXT for number in (1, 2, 3, 4)] == [True, True, True, False]
    one = next(line.partition("GCP 1: ")[2] for line in TEXT.splitlines() if "GCP 1: " in line)
    validate_config(prepare_config({**CONFIG, **yaml.safe_load(one)}))
