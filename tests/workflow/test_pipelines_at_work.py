"""Rival pipelines through the same job: a search for hyperparameters of their own, two processes in stage 2."""

import json

import pyarrow.parquet as pq
import pytest
from jobs_at_work import prune_here
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import ice_ray

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("aap", ["--aap.rounds", "5", "--space", "space.yaml"]),
        ("imp", ["--imp.form", "unstructured", "--search.algorithm", "tpe", "--imp.schedule", "allr"]),
    ],
)
def test_a_rival_is_searched_and_replayed_as_ice_is(finished, cluster, tmp_path, monkeypatch, capfd, name, options):
    (tmp_path / "space.yaml").write_text("threshold_step: 2\naccuracy_budget: [5, 20]\nlearning_rate: 0.02\n")
    monkeypatch.chdir(tmp_path)
    weights = ["--weights", str(finished[0] / "dense.safetensors")]
    assert prune_here(tmp_path, name, "--pipeline", name, *weights, *options, "--replay.workers", "2") == 0
    run, printed = tmp_path / name, capfd.readouterr().out
    best, summary = (json.loads((run / file).read_text()) for file in ("best.json", "summary.json"))
    assert best["hyperparameters"] == summary["hyperparameters"]
    rows = pq.read_table(run / "trials.parquet").to_pylist()
    assert set(best["hyperparameters"]) < set(rows[0])
    assert {row["trial"] for row in rows} == {0, 1}
    steps = summary["steps"]
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    tags = EventAccumulator(str(run / "tensorboard" / "replay")).Reload()
    assert [event.value for event in tags.Scalars("accuracy/validation")] == pytest.approx(
        [summary["original_accuracy"], *(step["accuracy"] for step in steps)]
    )
    model = ice_ray.load_pruned(run / "pruned_model")
    left = sum(int(parameter.count_nonzero()) for parameter in model.parameters())
    assert left / summary["dense"]["parameters"] == pytest.approx(steps[-1]["unpruned_share"], abs=1e-3)
    if name == "aap":
        assert steps[-1]["unpruned_share"] >= 0.5
        assert {step["accepted"] for step in steps} == {True, False}
        assert "rolled back" in printed
    else:
        assert steps[-1]["unpruned_share"] == pytest.approx(0.5, abs=0.02)
        assert f"all layers, phase {len(steps)}/{len(steps)}" in printed
