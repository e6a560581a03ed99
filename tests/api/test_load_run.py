"""A run loaded in Python: what its trials, its front and its winner are, and what is said where there is no run."""

import dataclasses
import json
import re

import matplotlib as mpl
import pytest

import ice_ray
from ice_ray import NEVER, IceHyperparameters, UserError
from ice_ray.config.run import RunConfig
from ice_ray.observe.trials_table import write_trials
from ice_ray.pipelines.records import FINAL_RETRAINING, StepRecord
from ice_ray.trials.run import TrialResult

mpl.use("agg")
POINT = IceHyperparameters(2.0, 0.5, 0.01, 0.005, 0.1, 50)


def step(number: int, accuracy: float, seconds: float, layers: str = "conv") -> StepRecord:
    """One that leaves the network at `accuracy` and took `seconds`, all of them for repair."""
    return StepRecord(
        step=number, layers=layers, filters_removed=4, unpruned_share=0.8, accuracy_before=98.0,
        accuracy_after_pruning=accuracy, accuracy=accuracy, drop=98.0 - accuracy, images_measured=100,
        fine_tuned=layers == FINAL_RETRAINING, epochs=0.0, learning_rate_max=None, scoring_seconds=0.0,
        removal_seconds=0.0, repair_seconds=seconds, measuring_seconds=0.0, fine_tuning_seconds=0.0, flops=0.0,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A finished search of four trials, of which the second was beaten and the last failed before its first step."""
    points = [dataclasses.replace(POINT, steepness=each) for each in (6, 7, 8, 9)]
    points[2] = dataclasses.replace(points[2], accuracy_drop_threshold=NEVER)
    records = (
        (step(1, 97.0, 1.0), step(2, 96.0, 1.0)),
        (step(1, 97.0, 1.0), step(2, 95.0, 2.0)),
        (step(1, 97.0, 1.0), step(2, 97.0, 1.0), step(3, 97.5, 3.0, FINAL_RETRAINING)),
        (),
    )
    results = [
        TrialResult(index, point, own, "" if own else "diverged", "here", (False,) * len(own), "a CPU")
        for index, (point, own) in enumerate(zip(points, records, strict=True))
    ]
    folder = tmp_path / "runs" / "flowers"
    folder.mkdir(parents=True)
    write_trials(folder / "trials.parquet", results)
    config = RunConfig()
    best = {
        "trial": 2, "reason": "least <drop>", "clock": "wall", "flops_per_second": 1e9, "device": "a CPU",
        "original_accuracy": 98.0, "hyperparameters": points[2].plain(), "seconds": {}, "work": None,
        "config": config.as_dict(), "commands": ["c"],
    }  # fmt: skip
    (folder / "best.json").write_text(json.dumps(best))
    (folder / "run.json").write_text("{}")
    return folder


def test_the_trials_are_a_frame_of_numbers(folder):
    study = ice_ray.load_run(folder)
    trials = study.trials
    assert list(trials.index) == [0, 1, 2, 3]
    assert list(trials["steepness"]) == [6, 7, 8, 9]
    assert trials["accuracy_drop_threshold"][2] == NEVER
    assert list(trials["drop"][:3]) == [2.0, 3.0, 0.5]
    assert list(trials["pruning_seconds"][:3]) == [2.0, 3.0, 5.0]
    assert trials["drop"].isna()[3]
    assert trials["failure"][3] == "diverged"
    assert list(trials["steps"]) == [2, 2, 2, 0]
    assert list(study.front.index) == [0, 2]
    assert study.winner.name == 2
    assert study.winner["drop"] == 0.5
    assert len(study.trial_steps) == 7
    assert study.trial_steps.loc[(1, 2), "accuracy"] == 95.0


def test_the_winner_s_hyperparameters_are_those_to_prune_with(folder):
    found = ice_ray.load_run(folder).hyperparameters
    assert isinstance(found, IceHyperparameters)
    assert found.accuracy_drop_threshold == NEVER
    assert found.steepness == 8


def test_it_shows_its_trials_as_text_and_as_html(folder):
    study = ice_ray.load_run(str(folder))
    assert re.search(r"flowers: 3 of 4 trials finished; winner: trial 2, least <drop>", " ".join(str(study).split()))
    assert "diverged" in str(study)
    html = study._repr_html_()
    assert "least &lt;drop&gt;" in html
    assert html.count("<tr>") == 5
    assert "winner 2, stage 2 has not ended" in repr(study)


def test_the_plot_has_every_finished_trial_and_the_winner(folder):
    axes = ice_ray.load_run(folder).plot()
    trials, winner = axes.collections
    assert len(trials.get_offsets()) == 3
    assert winner.get_offsets().tolist() == [[5.0, 0.5]]
    front = axes.get_lines()[0]
    assert list(front.get_xdata()) == [2.0, 5.0]
    same = ice_ray.load_run(folder).plot(axes)
    assert same is axes


def test_without_a_pruned_model_that_is_said(folder):
    study = ice_ray.load_run(folder)
    assert not study.is_pruned
    with pytest.raises(UserError, match="run 'flowers' has no pruned model: its stage 2 has not ended"):
        _ = study.model


def test_what_is_no_run_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="there is no such run"):
        ice_ray.load_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"is not the folder of a run: it has no run\.json"):
        ice_ray.load_run(tmp_path / "runs")
    (folder / "trials.parquet").write_text("none")
    with pytest.raises(UserError, match=r"trials\.parquet"):
        ice_ray.load_run(folder)
    (folder / "best.json").unlink()
    with pytest.raises(UserError, match="has not ended: go on with it, resume=True"):
        ice_ray.load_run(folder)
