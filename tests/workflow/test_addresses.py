"""Whole jobs whose runs lie in a bucket, on a server that speaks S3: killed, gone on with, compared with a folder's."""

import json
import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from jobs_at_work import JOBS, SEARCH, command, decisions, finish, kill_at, pruned_weights, refused
from object_storage import SECRET
from pyarrow.fs import FileSelector

import ice_ray
from ice_ray.cluster.fault_log import FaultLog

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
_OF_THE_MACHINE = ("seconds", "node", "inherited")


def table(run) -> list[dict[str, object]]:
    rows = pq.read_table(pa.BufferReader((run / "trials.parquet").read_bytes())).to_pylist()
    return [{key: value for key, value in row.items() if not key.endswith(_OF_THE_MACHINE)} for row in rows]


@pytest.fixture(scope="module")
def killed(finished, bucket):
    """The run of `finished` again, in the bucket, with the driver killed in either stage."""
    run, _ = finished
    dense = ["--weights", str(run / "dense.safetensors")]
    both = command("ice_prune.py", bucket / "runs", "--name", "killed", *dense, *SEARCH)
    kill_at(both, "trial-")
    kill_at([*both, "--resume"], "step 3/6")
    assert f"run '{bucket / 'runs' / 'killed'}' exists" in refused(both)
    printed = finish([*both, "--resume"])
    return bucket / "runs" / "killed", printed


def test_killed_in_each_stage_and_resumed_it_equals_the_run_in_a_folder(finished, killed):
    (whole, _), (run, printed) = finished, killed
    assert "stage 1 is done" in printed
    assert "going on after step" in printed
    best, expected = (json.loads((each / "best.json").read_text()) for each in (run, whole))
    for key in ("trial", "hyperparameters", "drop", "pruning_seconds", "cost", "front", "original_accuracy"):
        assert best[key] == expected[key], key
    assert table(run) == table(whole)
    assert decisions(run) == decisions(whole)
    weights, theirs = pruned_weights(run), pruned_weights(whole)
    assert all(torch.equal(weights[key], theirs[key]) for key in theirs)
    assert FaultLog.of(run).counts()["resumption"] == 2


def test_all_of_it_is_there_and_no_credentials(killed):
    run, _ = killed
    selected = FileSelector(run.path, recursive=True)
    found = {info.path.removeprefix(f"{run.path}/") for info in run.file_system.get_file_info(selected) if info.is_file}
    whole = {"run.json", "best.json", "trials.parquet", "summary.json", "report.html", "pruned_model/README.md"}
    assert whole <= found
    for folder in ("search/actions.jsonl.lines/", "faults.jsonl.lines/", "replay/checkpoint_", "tune/", "tensorboard/"):
        assert any(path.startswith(folder) for path in found), folder
    assert not [path for path in found if path.startswith("search/networks/")]
    assert not [path for path in found if SECRET.encode() in (run / path).read_bytes()]


def test_tensorboard_reads_it_there(killed, monkeypatch):
    """With boto3, which moto brings along; TensorBoard's own variable says where the server is."""
    run, _ = killed
    program = (
        "import sys; from tensorboard.backend.event_processing.event_accumulator import EventAccumulator as E; "
        "tags = [E(trial).Reload().Scalars('accuracy/validation') for trial in sys.argv[1:]]; "
        "print([[event.step for event in events] for events in tags])"
    )
    monkeypatch.setenv("S3_ENDPOINT", os.environ["AWS_ENDPOINT_URL"])
    # One of them had just ended, or not quite, when the driver was killed.
    trials = [str(run / "tensorboard" / "search" / name) for name in ("trial-000", "trial-001")]
    printed = finish([sys.executable, "-c", program, *trials])
    steps = [own[:7] for own in json.loads(printed.splitlines()[-1])]  # a retraining may follow
    assert steps == [[0, 1, 2, 3, 4, 5, 6]] * 2


def test_other_jobs_take_the_address(killed, tmp_path):
    run, _ = killed
    (run / "report.html").unlink()
    assert str(run / "report.html") in finish([sys.executable, str(JOBS / "ice_report.py"), str(run)])
    assert (run / "report.html").read_text().startswith("<!")
    export = [sys.executable, str(JOBS / "ice_export.py"), str(run / "pruned_model"), "--format", "torch"]
    assert str(run / "pruned_model" / "model.pt2") in finish(export)
    finish([*export, "--target", str(tmp_path / "m.pt2")])
    assert (tmp_path / "m.pt2").stat().st_size > 0
    replay = [sys.executable, str(JOBS / "ice_replay.py"), "--config", str(run / "best.json")]
    assert "holds a replay already" in refused(replay)
    finish([*replay, "--trial", "1", "--replay.subsample", "0.1", "--replay.workers", "1"])
    assert ice_ray.load_pruned(str(run / "replays" / "trial-001" / "pruned_model"))


def test_a_bucket_that_is_not_there_ends_the_job_with_2():
    assert "no such bucket" in refused([sys.executable, str(JOBS / "ice_prune.py"), "--storage", "s3://another/runs"])
