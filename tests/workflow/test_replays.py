"""Stage 2 again, of a finished run: another of its trials, other ways to the images."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
import torch
from jobs_at_work import decisions, pruned_weights, replay_here

import ice_ray

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_any_finished_trial_is_replayed_apart_from_the_winner(finished, cluster):
    run, _ = finished
    other = 1 - json.loads((run / "best.json").read_text())["trial"]
    before = (run / "summary.json").read_text()
    options = ["--trial", str(other), "--replay.subsample", "0.1", "--replay.workers", "1"]
    assert replay_here(run / "best.json", *options) == 0
    apart = run / "replays" / f"trial-00{other}"
    assert ice_ray.load_pruned(apart / "pruned_model")
    found = json.loads((apart / "summary.json").read_text())["hyperparameters"]
    rows = pq.read_table(run / "trials.parquet", filters=[("trial", "=", other)]).to_pylist()
    assert ice_ray.IceHyperparameters.from_mapping(found).as_dict() == {name: rows[0][name] for name in found}
    assert (run / "summary.json").read_text() == before
    assert f"<h1>whole, trial-00{other}</h1>" in (apart / "report.html").read_text()
    card = (apart / "pruned_model" / "README.md").read_text()
    assert f" replay --config {run / 'best.json'} --trial {other}" in card


def test_streamed_images_give_the_bits_of_those_in_memory(finished, cluster, tmp_path, capfd):
    """In Train's workers, whose placement groups leave no CPU for decoding."""
    run, _ = finished
    best = json.loads((run / "best.json").read_text())
    best["config"]["images"] = "stream"
    streamed = tmp_path / "streamed"
    streamed.mkdir()
    for name in ("run.json", "dense.safetensors"):
        shutil.copy(run / name, streamed)
    (streamed / "best.json").write_text(json.dumps(best))
    assert replay_here(streamed / "best.json") == 0
    assert "decoded for every pass" in capfd.readouterr().out
    assert decisions(streamed) == decisions(run)
    found, expected = pruned_weights(streamed), pruned_weights(run)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
