"""Runs that suffer faults, and whether they end as one that suffered none: same records, same winner, same bits."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import torch
from ground import Ground
from job import Job, Stage, TooLateError
from kinds import KINDS, Kind, Scene, small_disk
from material import Material

import ice_ray
from ice_ray.cluster.fault_log import FaultLog

_OF_THE_WINNER = (
    "hyperparameters", "trial", "reason", "drop", "pruning_seconds", "cost", "front", "flops_per_second",
    "original_accuracy", "weight_changes", "trials",
)  # fmt: skip
_OF_A_SEARCH = ("best.json", "trials.parquet", "run.json", "preparation.json")
_OF_ANOTHER_DRIVER = ("resumption", "damaged file")
_TOGETHER, _ATTEMPTS = 5, 4


@dataclass(frozen=True)
class Suffered:
    """One fault and what became of it.

    Attributes:
        at, of: how far the job had come: action records of a search, steps of a replay (1 is none yet).
        seconds: from the end of the fault until the job came a step further.
        counted: whether the job itself counted that it survived it, and the others of its kind.
        difference: from the undisturbed run; empty where there is none.
    """

    kind: Kind
    at: int
    of: int
    seconds: float
    counted: bool
    difference: str


@dataclass(frozen=True)
class Undisturbed:
    """A run of both stages without a fault.

    Attributes:
        length: of each stage, in its own steps.
    """

    folder: Path
    length: dict[Stage, int]

    @classmethod
    def run(cls, ground: Ground, material: Material, folder: Path) -> Undisturbed:
        """On two nodes."""
        ground.have(2)
        length: dict[Stage, int] = {}
        for stage in ("search", "replay"):
            job = Job(stage, ground.address, folder / "undisturbed", material.options, folder / f"{stage}.log")
            job.start()
            assert job.finish() == 0, job.printed
            length[stage] = job.progress
        return cls(folder / "undisturbed", length)


def drawn(count: int, random: Random) -> list[list[Kind]]:
    """So many faults, of every kind as often as of any other, by the jobs that suffer them."""
    found: list[Kind] = []
    while len(found) < count:
        found += random.sample(KINDS, len(KINDS))
    jobs: list[list[Kind]] = []
    for kind in found[:count]:
        open_jobs = (job for job in jobs if job[0].stage == kind.stage and len(job) < _TOGETHER and kind not in job)
        job = next(open_jobs, None)
        if job is None:
            jobs.append(job := [])
        job.append(kind)
    return jobs


def suffer(
    kinds: Sequence[Kind], ground: Ground, material: Material, undisturbed: Undisturbed, folder: Path, random: Random
) -> list[Suffered]:
    """Run a job that suffers these faults, one after the other, at moments that are drawn.

    Where the job was faster than the faults, which this fast a machine allows, there is nothing to be learnt from it:
    another one is run.
    """
    for attempt in range(_ATTEMPTS):
        with contextlib.suppress(TooLateError):
            return _suffer(kinds, ground, material, undisturbed, folder / f"attempt-{attempt}", random)
    raise AssertionError(f"{_ATTEMPTS} jobs ended before {', '.join(kind.name for kind in kinds)}")


def _suffer(
    kinds: Sequence[Kind], ground: Ground, material: Material, undisturbed: Undisturbed, folder: Path, random: Random
) -> list[Suffered]:
    stage, small = kinds[0].stage, any(kind.small for kind in kinds)
    ground.have(min(kind.nodes for kind in kinds))
    with small_disk(folder / "disk") if small else contextlib.nullcontext():
        place = folder / "disk" if small else folder
        job = Job(stage, ground.address, place / "run", material.options, folder / "log")
        if stage == "replay":
            _copy_search(undisturbed.folder, job.folder)
        job.start()
        scene, length = Scene(job, ground, random), undisturbed.length[stage]
        struck: list[tuple[Kind, int, float]] = []
        try:
            for kind, moment in _moments(kinds, length, random):
                if kind.fault_log in _OF_ANOTHER_DRIVER:
                    # What the driver that is about to be lost has not noticed yet, nobody will have survived.
                    before = [each for each, *_ in struck]
                    job.wait_for("losses to be counted", partial(_are_counted, job.folder, before))
                job.expect(f"{stage} to come to {moment}", partial(job.has_come_to, moment))
                job.pause_within(random.random())
                at = job.progress
                if stage == "replay" and at >= length:  # no step is left that could suffer: let it end
                    job.expect("more to do", lambda: False)
                kind.inflict(scene)
                over = time.monotonic()
                job.wait_for("a step further", partial(job.has_come_to, min(at + 1, length)))
                struck.append((kind, at, time.monotonic() - over))
            code = job.finish()
        finally:
            job.kill()
        difference = f"exit code {code}:\n{job.printed}" if code else compare(stage, job.folder, undisturbed.folder)
        found = Counter({} if code else _fault_log(stage, job.folder))
    inflicted = _to_survive(kinds)
    counted = {kind: found[kind.fault_log] >= inflicted[kind.fault_log] for kind in kinds}
    return [Suffered(kind, at, length, seconds, counted[kind], difference) for kind, at, seconds in struck]


def compare(stage: Stage, run: Path, other: Path) -> str:
    """How a run differs from another in what it found; nothing where it does not."""
    if stage == "search":
        pairs = {"winner": (_winner(run), _winner(other)), "records": (_records(run), _records(other))}
    else:
        pairs = {"steps": (_steps(run), _steps(other)), "widths": (_widths(run), _widths(other))}
    differing = [f"{name}: {found} is not {expected}" for name, (found, expected) in pairs.items() if found != expected]
    if stage == "replay" and not differing:
        own, theirs = (ice_ray.load_pruned(each / "pruned_model").state_dict() for each in (run, other))
        differing = [f"tensor {key}" for key in theirs if not torch.equal(own[key], theirs[key])]
    return "; ".join(differing)


def _moments(kinds: Sequence[Kind], length: int, random: Random) -> list[tuple[Kind, int]]:
    """When each is inflicted, all of them at different moments; those first that need the most to be left."""
    in_order = sorted(kinds, key=lambda kind: kind.latest)
    drawn = sorted(random.sample(range(1, int(in_order[-1].latest * length) + 1), len(kinds)))
    limits = ((kind, kind.least, int(kind.latest * length)) for kind in in_order)
    return [
        (kind, min(max(moment, least), latest)) for (kind, least, latest), moment in zip(limits, drawn, strict=True)
    ]


def _copy_search(finished: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in _OF_A_SEARCH:
        shutil.copy(finished / name, folder)


def _winner(run: Path) -> dict[str, Any]:
    best = _json(run / "best.json")
    return {name: best[name] for name in _OF_THE_WINNER}


def _records(run: Path) -> list[dict[str, Any]]:
    """But for what the wall's clock says, and for who did it."""
    rows = pq.read_table(run / "trials.parquet").to_pylist()
    return [{name: value for name, value in row.items() if _is_result(name)} for row in rows]


def _steps(run: Path) -> list[dict[str, Any]]:
    steps = _json(run / "summary.json")["steps"]
    return [{name: value for name, value in step.items() if _is_result(name)} for step in steps]


def _widths(run: Path) -> dict[str, Any]:
    pruned = _json(run / "summary.json")["pruned"]
    return {name: pruned[name] for name in ("widths", "validation_accuracy", "test_accuracy", "parameters")}


def _to_survive(kinds: Sequence[Kind]) -> Counter[str]:
    return Counter(kind.fault_log for kind in kinds if kind.fault_log)


def _are_counted(run: Path, kinds: Sequence[Kind]) -> bool:
    return Counter(FaultLog.of(run).counts()) >= _to_survive(kinds)


def _fault_log(stage: Stage, run: Path) -> dict[str, int]:
    return dict(_json(run / ("best.json" if stage == "search" else "summary.json"))["fault_log"])


def _is_result(name: str) -> bool:
    return not name.endswith("seconds") and name not in ("node", "inherited")


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))
