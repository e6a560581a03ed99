"""Two jobs on one run, the second at a chosen moment of the first: one is refused, the other is undisturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

import ice_ray
from ice_ray.address import StoragePath, storage_path
from ice_ray.claims.claim import is_of_claim
from ice_ray.models.registry import ModelSpec

ROOT = Path(__file__).parent.parent.parent
MOMENTS = {
    "both at once": "",
    "while the first looks at the data": "",
    "in stage 1": "stage 1:",
    "in stage 2": "stage 2:",
    "at the end": "dense against pruned",
    "both go on with a killed run": "",
}
"""The words of the first job behind which the second begins, after a pause that is drawn."""
_OF_STAGE_2 = ("in stage 2", "at the end")
_PAUSES = {"both at once": 0.3, "while the first looks at the data": 8.0, "both go on with a killed run": 0.3}
_PAUSE = 3.0  # behind words
_OF_A_SEARCH = ("run.json", "best.json", "trials.parquet", "preparation.json")
_PATIENCE_SECONDS = 240.0
_RATIOS = ("0.3", "0.7")


@dataclass(frozen=True)
class Duel:
    """What came of one.

    Attributes:
        fault: what is not as it must be; nothing where all is.
        codes: the two jobs' exit codes.
        pause: seconds between what the first had come to and the start of the second.
        said: by whom was refused.
    """

    moment: str
    pause: float
    codes: tuple[int, int]
    said: str
    fault: str


@dataclass
class Arena:
    """A folder for what all duels share: the dense weights, the undisturbed runs, a search that was killed.

    Attributes:
        address: of the Ray cluster that all jobs join; empty where each starts one.
    """

    folder: Path
    address: str = ""
    undisturbed: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        torch.save(ModelSpec("cifar-resnet8", 10).build().state_dict(), self.folder / "dense.pth")

    def whole(self, ratio: str) -> Path:
        """A run of that ratio that had nobody beside it."""
        run = self.folder / f"whole-{ratio}"
        if ratio not in self.undisturbed:
            job = self.run(self.folder, run.name, "ice_prune.py", ratio)
            assert job.wait() == 0, job.printed()
            self.undisturbed[ratio] = result(run)
        return run

    def killed(self) -> Path:
        """A search whose driver was killed."""
        run = self.folder / "killed"
        if not run.exists():
            job = self.run(self.folder, run.name, "ice_search.py", _RATIOS[0])
            job.wait_for("stage 1:")
            while not (run / "preparation.json").is_file():
                time.sleep(0.05)
            job.process.kill()
            job.process.wait()
            time.sleep(3)  # Ray's processes notice that their driver is gone
        return run

    def fight(self, storage: StoragePath, name: str, moment: str, random: Random) -> Duel:
        """One duel: of searches, or, where stage 2 is what matters, of jobs on a finished search."""
        ratio, other = _RATIOS[0], random.choice(_RATIOS)
        resumes = ["--resume"] * (other == ratio)
        if moment in _OF_STAGE_2:
            _copy(self.whole(ratio), storage / name, _OF_A_SEARCH)
            begin = partial(self.replay, storage / name)
            kinds = [begin, partial(self.run, storage, name, "ice_prune.py", other, *resumes)]
        else:
            if killed := moment.startswith("both go on"):
                _copy(self.killed(), storage / name)
                other, resumes = ratio, ["--resume"]
            begin = partial(self.run, storage, name, "ice_search.py", ratio, *(resumes if killed else []))
            kinds = [
                partial(self.run, storage, name, job, other, *resumes) for job in ("ice_prune.py", "ice_search.py")
            ]
        first = begin()
        if MOMENTS[moment]:
            first.wait_for(MOMENTS[moment])
        pause = random.uniform(0, _PAUSES.get(moment, _PAUSE))
        time.sleep(pause)
        second = random.choice(kinds)()
        codes = (first.wait(), second.wait())
        fault, said = self._judge((first, second), codes, storage / name)
        return Duel(moment, round(pause, 2), codes, said, fault)

    def _judge(self, jobs: tuple[Job, Job], codes: tuple[int, int], run: StoragePath) -> tuple[str, str]:
        told = [index for index, job in enumerate(jobs) if "is finished; its pruned model" in job.printed()]
        winners = [index for index, code in enumerate(codes) if code == 0 and index not in told]
        if len(winners) != 1:
            return f"{len(winners)} jobs did it:\n" + "\n".join(job.printed() for job in jobs), ""
        (loser,) = {0, 1} - set(winners)
        last = jobs[loser].printed().strip().splitlines()[-1]
        if loser not in told and (codes[loser] != 2 or not last.startswith(f"{jobs[loser].program}: ")):
            return f"the other ended with {codes[loser]}: {jobs[loser].printed()}", last
        found = result(run)
        ratio = f"{found['ratios'][0]}"
        self.whole(ratio)
        faults = differences(found, self.undisturbed[ratio])
        left = [each.name for each in run.iterdir() if is_of_claim(each)]
        return faults + (f" left {left}" if left else ""), last

    def run(self, storage: StoragePath, name: str, program: str, ratio: str, *words: str) -> Job:
        """Start a job."""
        options = [
            *("--preset", "small", "--weights", str(self.folder / "dense.pth"), "--ratio", ratio),
            *("--precision", "fp32", "--search.trials", "1", "--search.clock", "work", "--search.work-speed", "1e9"),
            *("--search.subsample", "0.1", "--search.eval-images", "50", "--replay.subsample", "0.1"),
            *("--storage", str(storage), "--name", name, *words),
        ]
        return Job.start(program, options, self.address or "local", self.folder)

    def replay(self, run: StoragePath) -> Job:
        """Start the replay of a finished search."""
        return Job.start("ice_replay.py", ["--config", str(run / "best.json")], self.address or "local", self.folder)


@dataclass(frozen=True)
class Job:
    """One by its command line, and what it prints."""

    program: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, program: str, options: list[str], address: str, logs: Path) -> Job:
        """Begin; its log goes below `logs`."""
        handle, name = tempfile.mkstemp(prefix="log-", dir=logs)
        own = {"PYTHONUNBUFFERED": "1", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "RAY_ADDRESS": address}
        own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, str(ROOT / "jobs" / program), *options]
        with os.fdopen(handle, "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=os.environ | own)
        return cls(program, process, Path(name))

    def printed(self) -> str:
        """So far, errors too."""
        return self.log.read_text(errors="replace")

    def wait_for(self, words: str) -> None:
        """Until it has printed them, or has ended."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while words not in self.printed() and self.process.poll() is None:
            assert time.monotonic() < deadline, self.printed()
            time.sleep(0.02)

    def wait(self) -> int:
        """Its exit code."""
        try:
            return self.process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def result(run: StoragePath) -> dict[str, Any]:
    """All that a run found, but for what the wall's clock says; of a search alone, nothing of stage 2."""
    described, best = (json.loads((run / name).read_text()) for name in ("run.json", "best.json"))
    rows = pq.read_table(pa.BufferReader((run / "trials.parquet").read_bytes())).to_pylist()
    chosen = {key: best[key] for key in ("trial", "hyperparameters", "drop", "pruning_seconds", "cost")}
    ratios = [described["config"]["ratio"], best["config"]["ratio"]]
    found = {"best": chosen, "trials": [_lasting(row) for row in rows], "ratios": ratios}
    if (run / "summary.json").is_file():
        summary = json.loads((run / "summary.json").read_text())
        found["model"] = ice_ray.load_pruned(str(run / "pruned_model")).state_dict()
        found["steps"] = [_lasting(step) for step in summary["steps"]]
        ratios.append(summary["config"]["ratio"])
    return found


def _lasting(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.endswith(("seconds", "node", "inherited"))}


def differences(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """Of what one result has and another; nothing where that is the same, bit for bit."""
    named = [key for key in ("best", "trials", "steps") if key in found and found[key] != expected[key]]
    if set(found["ratios"]) != set(expected["ratios"]):
        named.append(f"ratios {found['ratios']}")
    model, theirs = found.get("model"), expected["model"]
    if model is not None and not all(torch.equal(model[key], theirs[key]) for key in theirs):
        named.append("model")
    return ", ".join(named)


def _copy(folder: Path, run: StoragePath, names: tuple[str, ...] = ()) -> None:
    """What lies there, the claim of a killed job included; or the files of these names."""
    for file in (path for path in folder.rglob("*") if path.is_file() and (path.name in names or not names)):
        copy = storage_path(run)
        for part in file.relative_to(folder).parts:
            copy.make_folder()
            copy = copy / part
        copy.write_bytes(file.read_bytes())
