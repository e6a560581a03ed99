"""MLflow and Weights & Biases, the real libraries writing to files: what a search and a replay leave there.

They are extras that the tests do not install: `uv run --extra mlflow --extra wandb pytest -n 0 tests/observe -m 'slow
or not slow'` runs these tests too.
"""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from jobs_at_work import JOBS, OPTIONS, ROOT, kill_at

from ice_ray.config.run import RunConfig
from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.observe.trackers import check_trackers, tracked
from ice_ray.workflow.jobs import prune_job
from ice_ray.workflow.running import run

SMALL = ["--preset", "small", "--search.eval-images", "50", "--replay.subsample", "0.2"]


def needs(tracker: str) -> None:
    if importlib.util.find_spec(tracker) is None:
        pytest.skip(f"needs the extra: pip install 'ice_ray[{tracker}]'")


def test_a_missing_extra_is_named_in_one_line(tmp_path):
    """In a process that cannot import them, as where the extras are not installed."""
    program = (
        "import sys; sys.modules.update(mlflow=None, wandb=None); "
        "from ice_ray.config.run import RunConfig; from ice_ray.workflow.jobs import prune_job; "
        "from ice_ray.workflow.running import run; "
        "sys.exit(sum(run(prune_job, RunConfig, 'p', ['--log-to', name]) for name in ('mlflow', 'wandb')))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 2 + 2
    assert ended.stderr.splitlines() == [
        f"p: --log-to {tracker} needs the extra: pip install 'ice_ray[{tracker}]'" for tracker in ("mlflow", "wandb")
    ]
    assert not list(tmp_path.iterdir())


def test_wandb_without_a_key_is_refused_before_anything_runs(tmp_path, monkeypatch, capsys):
    needs("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(prune_job, RunConfig, "p", ["--log-to", "wandb"]) == 2
    assert "no API key; run `wandb login`" in capsys.readouterr().err
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(["wandb"])


def test_a_server_that_is_not_there_is_said(monkeypatch, capsys):
    needs("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert run(prune_job, RunConfig, "p", ["--log-to", "mlflow"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("p: --log-to mlflow: 'http://127.0.0.1:9' (MLFLOW_TRACKING_URI) cannot be used")
    assert line.count("\n") == 1


def reported(step: int, **others) -> dict[str, float]:
    told = {"step": step, "accuracy": 90.0 - step, "drop": float(step), "pruning_seconds": 2.0 * step, "done": False}
    return told | others


POINT = IceHyperparameters(1.0, 0.3, 0.005, 6e-4, 0.1, 50)


# A job that is killed, in a process of its own: two trials have begun, one has ended, and so has no step of the replay.
KILLED = """
import os, signal, sys
from pathlib import Path
from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.observe.trackers import tracked
from ice_ray.observe.trackers.runs import TrackedReplay
point = IceHyperparameters(1.0, 0.3, 0.005, 6e-4, 0.1, 50)
with tracked(["mlflow"], "run", Path(sys.argv[1])) as (runs,):
    for name in ("trial-000", "trial-001"):
        runs.begin(name, point)
        for step in (1, 2):
            runs.step(name, {"step": step, "accuracy": 90.0 - step, "drop": float(step), "pruning_seconds": 2.0 * step})
    runs.end("trial-000", {}, failed=False)
    replay = TrackedReplay(runs, "replay", point)
    replay.step({"step": 1, "accuracy": 89.0, "drop": 1.0, "pruning_seconds": 2.0})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_job_s_runs_go_on_in_mlflow_and_nothing_is_there_twice(tmp_path, monkeypatch):
    needs("mlflow")
    import mlflow

    from ice_ray.observe.trackers.runs import TrackedReplay, TrackerCallback

    store = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.chdir(tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    with tracked(["mlflow"], "run", tmp_path) as (runs,):
        trials = TrackerCallback(runs, 1, IceHyperparameters)
        steps = [reported(step) for step in (1, 2, 3)]
        trials.catch_up("trial-000", steps, POINT.as_dict(), ended=True)
        last = reported(3, done=True, cost_so_far=3.0)
        trials.catch_up("trial-001", [*steps[:2], last], POINT.as_dict(), ended=True)
        replay = TrackedReplay(runs, "replay", POINT)
        replay.catch_up(steps[:2])
        replay.step(steps[2])
        replay.end(3, {"dense": {"parameters": 2}, "pruned": {"parameters": 1}})
    client = mlflow.tracking.MlflowClient(store)
    (experiment,) = (found for found in client.search_experiments() if found.name == "run")
    found = {each.info.run_name: each for each in client.search_runs([experiment.experiment_id])}
    assert len(client.search_runs([experiment.experiment_id])) == 3
    ended = dict.fromkeys(("trial-000", "trial-001", "replay"), "FINISHED")
    assert {name: each.info.status for name, each in found.items()} == ended
    for name, last in {"trial-000": 2, "trial-001": 3, "replay": 3}.items():
        told = client.get_metric_history(found[name].info.run_id, "accuracy/validation")
        assert [(entry.step, entry.value) for entry in told] == [(step, 90.0 - step) for step in range(last + 1)]
    assert found["trial-001"].data.metrics["cost/cumulative"] == 3
    assert found["replay"].data.params["accuracy_drop_threshold"] == "1"
    assert found["replay"].data.metrics["pruned/parameters"] == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_and_its_replay_are_in_both(tmp_path):
    """Once each, and all of them ended, though the job was killed in either stage and gone on with."""
    for tracker in ("mlflow", "wandb"):
        needs(tracker)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    environment = os.environ | {"MLFLOW_TRACKING_URI": store, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    command = [sys.executable, str(JOBS / "ice_prune.py"), *SMALL, *OPTIONS, "--storage", str(tmp_path)]
    command += ["--name", "tracked", "--log-to", "mlflow", "wandb"]
    kill_at(command, "trial-", environment)
    kill_at([*command, "--resume"], "step 3/", environment)
    ended = subprocess.run(
        [*command, "--resume"], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "nothing more is logged" not in ended.stdout
    folder = tmp_path / "tracked"
    best, summary = (json.loads((folder / name).read_text()) for name in ("best.json", "summary.json"))
    of_mlflow(store, best, summary)
    of_wandb(tmp_path / "wandb", best, summary)


def of_mlflow(store: str, best, summary) -> None:
    import mlflow

    client = mlflow.tracking.MlflowClient(store)
    (experiment,) = (found for found in client.search_experiments() if found.name == "tracked")
    runs = {found.info.run_name: found for found in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"trial-000", "trial-001", "replay"}
    assert {found.info.status for found in runs.values()} == {"FINISHED"}
    winner = runs[f"trial-{best['trial']:03d}"].data
    point = IceHyperparameters.from_mapping(best["hyperparameters"])
    assert {name: float(value) for name, value in winner.params.items()} == point.in_effect
    assert winner.metrics["cost/cumulative"] == pytest.approx(best["cost"])
    assert winner.metrics["time/cumulative_pruning"] == pytest.approx(best["pruning_seconds"])
    replay = runs["replay"]
    told = client.get_metric_history(replay.info.run_id, "accuracy/validation")
    steps = [(step["step"], step["accuracy"]) for step in summary["steps"]]
    assert [(entry.step, entry.value) for entry in told] == [(0, summary["original_accuracy"]), *steps]
    assert replay.data.metrics["pruned/parameters"] == summary["pruned"]["parameters"]
    assert replay.data.metrics["pruned/test_accuracy"] == summary["pruned"]["test_accuracy"]


def of_wandb(folder, best, summary) -> None:
    found = [read_offline(path) for path in folder.glob("offline-run-*/*.wandb")]
    runs = {content["name"]: content for content in found}
    assert len(found) == len(runs)
    assert set(runs) == {"trial-000", "trial-001", "replay"}
    assert {content["group"] for content in runs.values()} == {"tracked"}
    assert {content["project"] for content in runs.values()} == {"ice_ray"}
    config = runs[f"trial-{best['trial']:03d}"]["config"]
    point = IceHyperparameters.from_mapping(best["hyperparameters"]).in_effect
    assert {name: float(config[name]) for name in point} == point
    history = runs["replay"]["history"]
    accuracies = [row["accuracy/validation"] for row in history if "accuracy/validation" in row]
    assert accuracies == [summary["original_accuracy"], *(step["accuracy"] for step in summary["steps"])]
    assert history[-1]["pruned/parameters"] == summary["pruned"]["parameters"]


def read_offline(path) -> dict:
    """What a file of wandb's offline mode says of its run; wandb itself only uploads it."""
    from wandb.proto import wandb_internal_pb2

    found = {"config": {}, "history": []}
    for data in offline_records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {
                "id": record.run.run_id,
                "name": record.run.display_name,
                "group": record.run.run_group,
                "project": record.run.project,
            }
            found["config"] |= values(record.run.config.update)
        elif kind == "history":
            found["history"].append(values(record.history.item))
    return found


def offline_records(content: bytes):
    """LevelDB's log format after a header of 7 bytes: blocks of 32 KiB, in them pieces of records, each with 4 bytes of
    checksum, 2 of length and 1 that says whether it is whole (1), or the first (2), a middle (3) or the last one (4).
    """
    place, record = 7, b""
    while place + 7 <= len(content):
        room = 32768 - place % 32768
        if room < 7:
            place += room
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def values(items) -> dict:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
