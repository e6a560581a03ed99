"""The jobs as users run them: real command lines, real Ray, two workers; killed and gone on with."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from jobs_at_work import (
    JOBS,
    ROOT,
    SEARCH,
    command,
    decisions,
    ended_well,
    kill_at,
    prune_here,
    pruned_weights,
    replay_here,
    search_here,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import ice_ray
from ice_ray.data.batches import Shard
from ice_ray.data.images import ImageSet, Preprocessing
from ice_ray.ingest.datasets import open_dataset
from ice_ray.ingest.roles import assign_roles
from ice_ray.observe.step_log import OUTCOME_TAGS
from ice_ray.training.evaluate import count_correct

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_run_folder_holds_what_came_out(finished):
    run, printed = finished
    best = json.loads((run / "best.json").read_text())
    assert set(best["hyperparameters"]) == set(ice_ray.IceHyperparameters(1, 0.1, 1e-2, 1e-3, 0.1, 1).as_dict())
    assert best["trials"] == {"finished": 2, "failed": 0}
    assert best["clock"] == "work"
    assert best["reason"].startswith("least price")
    front = {entry["trial"]: entry for entry in best["front"]}
    assert front[best["trial"]]["hyperparameters"] == best["hyperparameters"]  # least price: nothing dominates it
    assert front[best["trial"]]["pruning_seconds"] == best["pruning_seconds"]
    trials = pq.read_table(run / "trials.parquet").to_pylist()
    for trial in (0, 1):
        own = [row for row in trials if row["trial"] == trial]
        assert [row["step"] for row in own] == list(range(1, 7 + (own[0]["final_epochs"] > 0)))
    assert "dense against pruned" in printed
    assert "stage 1: 2 trials (tpe) of 6 pruning steps" in printed
    assert "(2/2) drop" in printed
    assert "winner: trial" in printed
    assert "\x1b" not in printed


def test_the_pruned_model_is_smaller_and_as_good_as_its_file_says(finished):
    run, _ = finished
    model = ice_ray.load_pruned(run / "pruned_model")
    facts = json.loads((run / "pruned_model" / "model.json").read_text())["metrics"]
    assert (
        sum(p.numel() for p in model.parameters())
        == facts["pruned"]["parameters"]
        < 0.55 * facts["dense"]["parameters"]
    )
    assert facts["pruned"]["test_accuracy"] > 90
    dataset = open_dataset("digits")
    rows = assign_roles(dataset, "holdout", 0).test
    pixels = np.stack([row.pixels for row in dataset.read(rows.split, rows.indices)])
    images = ImageSet.from_numpy(pixels, dataset.labels[rows.split][rows.indices])
    correct = int(count_correct(model, images, Preprocessing(), "fp32", Shard())[0])
    assert 100 * correct / len(images) == pytest.approx(facts["pruned"]["test_accuracy"])
    assert len(images) == facts["pruned"]["test_images"] == 269


def test_every_trial_and_stage_2_are_in_tensorboard_under_the_same_tags(finished):
    run, _ = finished
    folders = [run / "tensorboard" / "search" / "trial-000", run / "tensorboard" / "search" / "trial-001"]
    for folder in [*folders, run / "tensorboard" / "replay"]:
        events = EventAccumulator(str(folder)).Reload()
        tags = {"accuracy/validation", "size/parameters_left", "cost/cumulative", "time/cumulative_pruning"}
        measured = set(OUTCOME_TAGS.values()) if folder.name == "replay" else set()
        assert set(events.Tags()["scalars"]) == tags | measured
        steps = [event.step for event in events.Scalars("accuracy/validation")]
        assert steps == list(range(len(steps))) and len(steps) in (7, 8)  # the dense model, 6 steps, a retraining
        assert "_hparams_/session_start_info" in events.summary_metadata
    summary = json.loads((run / "summary.json").read_text())
    written = EventAccumulator(str(run / "tensorboard" / "replay")).Reload()
    accuracies = [summary["original_accuracy"], *(record["accuracy"] for record in summary["steps"])]
    assert [event.value for event in written.Scalars("accuracy/validation")] == pytest.approx(accuracies, rel=1e-5)
    for name, tag in OUTCOME_TAGS.items():
        values = [event.value for event in written.Scalars(tag)]
        assert [values[0], values[-1]] == pytest.approx(
            [summary[which][name] for which in ("dense", "pruned")], rel=1e-5
        )


def test_tensorboard_has_every_loss_of_stage_2_and_the_run_as_a_whole(finished):
    run, _ = finished
    summary = json.loads((run / "summary.json").read_text())
    folder, trained = run / "tensorboard" / "replay-fine-tuning", sum(step["epochs"] for step in summary["steps"])
    assert folder.exists() == (trained > 0)
    losses = EventAccumulator(str(folder)).Reload().Scalars("fine_tuning/loss") if trained else []
    assert [event.step for event in losses] == list(range(len(losses)))
    images = round(0.8 * 1797)  # of the digits; the rest decides and reports
    assert len(losses) == pytest.approx(trained * images / summary["config"]["batch_size"], rel=0.15)
    pages = EventAccumulator(str(run / "tensorboard" / "run")).Reload()
    probed = {"run/weight_change"} if json.loads((run / "best.json").read_text())["weight_changes"] else set()
    assert set(pages.Tags()["images"]) == {"run/time_against_drop", "run/widths"} | probed
    (card,) = pages.Tensors("run/model_card/text_summary")[0].tensor_proto.string_val
    assert f"{summary['pruned']['parameters']:,}" in card.decode()


def test_a_finished_run_is_not_run_again(finished, monkeypatch, capsys):
    run, _ = finished
    monkeypatch.chdir(ROOT)  # where the objective is
    assert prune_here(run.parent, run.name, *SEARCH, "--resume") == 0
    assert "is finished" in capsys.readouterr().out


def test_killed_in_each_stage_and_resumed_by_any_job_equals_the_undisturbed_run(
    finished, cluster, tmp_path, monkeypatch, capsys
):
    """Stage 1 is killed in the job of both stages and ended by its own; stage 2 the other way round."""
    run, _ = finished
    monkeypatch.chdir(ROOT)  # where the objective is
    dense = ["--weights", str(run / "dense.safetensors")]
    both = command("ice_prune.py", tmp_path, "--name", "killed", *dense, *SEARCH)
    kill_at(both, "trial-")
    assert search_here(tmp_path, "killed", *dense, *SEARCH, "--resume") == 0
    best = tmp_path / "killed" / "best.json"
    chosen = [json.loads(path.read_text())["hyperparameters"] for path in (best, run / "best.json")]
    assert chosen[0] == chosen[1]

    replay = [sys.executable, str(JOBS / "ice_replay.py"), "--config", str(best)]
    kill_at(replay, "step 3/6")
    for options, said in (
        ((), "holds a replay already"),
        (("--resume", "--replay.subsample", "0.5"), "--replay.subsample was 1.0 and is 0.5"),
        (("--resume", "--repair", "bn"), "--repair was reconstruction and is bn"),
    ):
        capsys.readouterr()
        assert replay_here(best, *options) == 2
        assert said in capsys.readouterr().err

    ended = ended_well([*both, "--resume", "--verbose"])
    printed = ended.stdout
    assert "stage 1 is done" in printed
    assert "going on after step" in printed
    assert "step 1/6 layer" not in printed
    told = [line for line in printed.splitlines() if line.startswith("  step ")]
    assert len(told) == len(set(told))  # as many as were left, which the workers may have finished meanwhile
    said = printed + ended.stderr
    assert "Started a local Ray instance" in said  # that is what --verbose is for
    assert re.search(r"pid=\d+\)", said)
    assert decisions(tmp_path / "killed") == decisions(run)
    expected, found = pruned_weights(run), pruned_weights(tmp_path / "killed")
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_data_model_criterion_pipeline_and_objective_of_one_s_own_from_one_s_own_folder(tmp_path):
    """The files of examples/, as a package of the user's in the working directory, all in one job."""
    shutil.copytree(JOBS.parent / "examples", tmp_path / "mypkg")

    def at_home(*words: str) -> None:
        ended = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr

    at_home("-m", "mypkg.model", "w.safetensors")
    at_home(
        str(JOBS / "ice_prune.py"), "--preset", "small", "--search.trials", "2", "--name", "own",
        "--data", "mypkg.dataset:build", "--model", "mypkg.model:build", "--weights", "w.safetensors",
        "--criterion", "mypkg.criterion:GeometricMedian", "--pipeline", "mypkg.pipeline:EveryFewSteps",
        "--search.objective", "mypkg.objective:choose",
    )  # fmt: skip
    run = tmp_path / "runs" / "own"
    facts = json.loads((run / "pruned_model" / "model.json").read_text())
    assert facts["class_names"] == list("0123456789")
    assert facts["metrics"]["dense"]["test_accuracy"] > 90  # digits they are, and not of the training split
    assert facts["widths"] == {"conv1": 8, "conv2": 16, "conv3": 16}
    steps = json.loads((run / "summary.json").read_text())["steps"]
    assert [step["fine_tuned"] for step in steps] == [False, True, False]
