"""What a run wrote, edited or damaged since."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from bad_input import BadInput, Case, cut, garbage
from bad_weights import weights
from ice_runs import DIGITS

from ice_ray.artifact import DESCRIPTION, save_pruned
from ice_ray.config.run import RunConfig
from ice_ray.files import write_json
from ice_ray.ingest.datasets import open_dataset
from ice_ray.models.registry import ModelSpec
from ice_ray.observe.trials_table import write_trials
from ice_ray.trials.run import TrialResult, point_log
from ice_ray.trials.space import load_space
from ice_ray.workflow.run_folder import RunFolder

WRONG: list[Any] = [{"x": 1}, [[1]], [{}], {"a": {"b": None}}]
# What in a run's files decides nothing may say anything.
NAMES = {"name", "node", "failure", "reason"}


@cache
def point() -> dict[str, float]:
    return load_space(DIGITS).points()[0].as_dict()


def edited_model(case: Case) -> BadInput:
    folder = case.folder / "m"
    save_pruned(folder, ModelSpec("cifar-resnet8", 10), (3, 8, 8), {}, weights(), {"metrics": {"accuracy": 1.0}})
    description = folder / DESCRIPTION
    content = json.loads(description.read_text())
    chance = case.random
    key = chance.choice(["schema_version", "builder", "image_shape", "widths", "sha256"])
    if chance.random() < 0.3:
        content["builder"]["name"] = chance.choice(
            ["os:system", "examples.model:build", "cifar-resnet9", "../x", "\x1b"]
        )
    elif chance.random() < 0.3:
        layer = chance.choice(["layer1.0.conv1", "nowhere", "", "conv1", "layer1.0"])
        content["widths"] = {layer: chance.choice([0, -1, 17, 10**9, "8", 1.5, True, None])}
    else:
        _spoil(case, content, key)
    _save(case, description, content)
    return BadInput("load", (str(folder),))


def edited_winner(case: Case) -> BadInput:
    """best.json, for a replay or as a warm start."""
    content = {"config": RunConfig().as_dict(), "hyperparameters": dict(point())}
    path = case.folder / "best.json"
    if case.random.random() < 0.5:
        _spoil(case, content, "hyperparameters")
        _save(case, path, content)
        return case.prune("--search.warm-start", path, "--search.trials", 2)
    _spoil(case, content, case.random.choice(["config", "hyperparameters"]))
    _save(case, path, content)
    return BadInput("replay", ("--config", str(path)))


def edited_run(case: Case) -> BadInput:
    """A file of an interrupted run that is to be gone on with."""
    chance = case.random
    run = RunFolder(case.folder / "runs" / "a")
    run.create(RunConfig(name="a"), _labels())
    name = chance.choice(["run.json", "target.json", "points.json", "preparation.json", "trial.json"])
    asked = ["--target", "macs=0.5"] if name == "target.json" else []
    if name == "run.json":
        content = json.loads(run.description.read_text())
        _spoil(case, content, chance.choice(["config", "files", "labels"]))
        _save(case, run.description, content)
    elif name == "target.json":
        shutil.rmtree(run.path)
        run.create(RunConfig(name="a", target="macs=0.5"), _labels())
        found = {"ratio": 0.3, "share": 0.5}
        _spoil(case, found, "ratio")
        _save(case, run.target, found)
    else:
        log = point_log(run.path, "ice")
        log.begin(load_space(DIGITS).points())
        points: list[Any] = [dict(point()), dict(point())]
        _spoil(case, points[1], chance.choice(list(point())))
        _save(case, run.path / "search" / "points.json", points)
    return case.prune("--storage", case.folder / "runs", "--name", "a", "--resume", *asked)


def edited_trials(case: Case) -> BadInput:
    """trials.parquet, of which a trial is to be replayed."""
    chance, run = case.random, RunFolder(case.folder)
    write_json(run.best, {"config": RunConfig().as_dict(), "hyperparameters": point()})
    hyperparameters = load_space(DIGITS).points()[0]
    write_trials(run.trials, [TrialResult(0, hyperparameters, (), "", "here")])
    whole = run.trials.read_bytes()
    if chance.random() < 0.5:
        run.trials.write_bytes(chance.choice([cut(chance, whole), garbage(chance, 200), b""]))
    else:
        table = pq.read_table(run.trials)
        column = chance.choice(["trial", "failure", *point()])
        place = table.column_names.index(column)
        nothing = pa.nulls(len(table), pa.float64())
        odd = chance.choice([table.remove_column(place), table.set_column(place, column, nothing)])
        if column == "failure":
            odd = table.remove_column(place)
        pq.write_table(odd, run.trials)
    return BadInput("replay", ("--config", str(run.best), "--trial", "0"))


KINDS: dict[Callable[[Case], BadInput], int] = {
    edited_model: 80,
    edited_winner: 50,
    edited_run: 40,
    edited_trials: 30,
}


@cache
def _labels() -> str:
    return open_dataset("digits").labels_digest


def _spoil(case: Case, content: dict[str, Any], key: str) -> None:
    """Put something in the place of a value that nothing of the kind may hold."""
    chance = case.random
    inner = content[key]
    while isinstance(inner, dict) and inner and chance.random() < 0.8:
        content, key = inner, chance.choice([each for each in inner if each not in NAMES])
        inner = content[key]
    content[key] = copy.deepcopy(chance.choice(WRONG))


def _save(case: Case, path: Path, content: Any) -> None:
    """As it is, or damaged besides."""
    chance = case.random
    text = json.dumps(content).encode()
    form = chance.random()
    if form < 0.1:
        text = cut(chance, text.rstrip(b"}] \n"))
    elif form < 0.15:
        text = garbage(chance, 100)
    elif form < 0.2:
        text = b"[" * 100_000
    elif form < 0.22:
        text = b'"text"'
    path.write_bytes(text)
