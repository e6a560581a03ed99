"""Two jobs on one run, the second at a chosen moment of the first: one is refused, the other is undisturbed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch

import ice_ray
from ice_ray.address import Place
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
_PAUSES = {"both at once": 0.3, "while the first looks at the data": 8.0, "both go on with a killed run": 0.3}
_PAUSE = 3.0  # behind words
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
    resumes: bool
    pause: float
    codes: tuple[int, int]
    said: str
    fault: str


@dataclass
class Arena:
    """A folder for what all duels share: the dense weights, the undisturbed runs, a run that was killed.

    Attributes:
        address: of the Ray cluster that all jobs join; empty where each starts one.
    """

    folder: Path
    address: str = ""
    undisturbed: dict[str, dict[str, Any]] = field(default_factory=dict)

    def prepare(self) -> None:
        """Run what others are compared with, and kill one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        weights = ModelSpec("cifar-resnet8", 10).build().state_dict()
        torch.save(weights, self.folder / "dense.pth")
        for ratio in _RATIOS:
            job = self._start(self.folder, f"whole-{ratio}", ratio)
            assert job.wait() == 0, job.printed()
            self.undisturbed[ratio] = result(self.folder / f"whole-{ratio}")
        job = self._start(self.folder, "killed", _RATIOS[0])
        job.wait_for("stage 1:")
        while not (self.folder / "killed" / "preparation.json").is_file():
            time.sleep(0.05)
        job.process.kill()
        job.process.wait()
        time.sleep(3)  # Ray's processes notice that their driver is gone

    def fight(self, storage: Place, name: str, moment: str, resumes: bool, random: Random) -> Duel:
        """One duel. Args: resumes: whether the second is told to go on with the first's run."""
        killed = moment.startswith("both go on")
        first_words, second_words = ["--resume"] * killed, ["--resume"] * (killed or resumes)
        if killed:
            _copy(self.folder / "killed", storage / name)
        ratio, other = _RATIOS[0], _RATIOS[0] if killed or resumes else _RATIOS[1]
        first = self._start(storage, name, ratio, *first_words)
        if MOMENTS[moment]:
            first.wait_for(MOMENTS[moment])
        pause = random.uniform(0, _PAUSES.get(moment, _PAUSE))
        time.sleep(pause)
        second = self._start(storage, name, other, *second_words)
        codes = (first.wait(), second.wait())
        fault, said = self._judge((first, second), codes, (ratio, other), storage / name)
        return Duel(moment, resumes, round(pause, 2), codes, said, fault)

    def _judge(
        self, jobs: tuple[_Job, _Job], codes: tuple[int, int], ratios: tuple[str, str], run: Place
    ) -> tuple[str, str]:
        ended = [index for index, code in enumerate(codes) if code == 0]
        told = [index for index, job in enumerate(jobs) if "is finished; its pruned model" in job.printed()]
        winners = [index for index in ended if index not in told]
        if len(winners) != 1:
            return f"{len(winners)} jobs did it:\n" + "\n".join(job.printed() for job in jobs), ""
        (loser,) = {0, 1} - set(winners)
        said = jobs[loser].printed().strip()
        if loser not in told and (codes[loser] != 2 or not said.splitlines()[-1].startswith("ice_prune.py: ")):
            return f"the other ended with {codes[loser]}: {said}", said
        differing = differences(result(run), self.undisturbed[ratios[winners[0]]])
        left = [each.name for each in run.iterdir() if each.name.startswith(".claim")]
        return differing + (f"left {left}" if left else ""), said.splitlines()[-1]

    def _start(self, storage: Place, name: str, ratio: str, *words: str) -> _Job:
        options = [
            *(
                "--preset",
                "small",
                "--weights",
                str(self.folder / "dense.pth"),
                "--ratio",
                ratio,
                "--precision",
                "fp32",
            ),
            *("--search.trials", "1", "--search.clock", "work", "--search.work-speed", "1e9"),
            *("--search.subsample", "0.1", "--search.eval-images", "50", "--replay.subsample", "0.1"),
            *("--storage", str(storage), "--name", name, *words),
        ]
        return _Job.start(options, {"RAY_ADDRESS": self.address or "local"}, self.folder)


@dataclass(frozen=True)
class _Job:
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, options: list[str], variables: dict[str, str], logs: Path) -> _Job:
        handle, name = tempfile.mkstemp(prefix="log-", dir=logs)
        own = {"PYTHONUNBUFFERED": "1", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", **variables}
        own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, str(ROOT / "jobs" / "ice_prune.py"), *options]
        with os.fdopen(handle, "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=os.environ | own)
        return cls(process, Path(name))

    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, words: str) -> None:
        """Until it has printed them, or has ended."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while words not in self.printed() and self.process.poll() is None:
            assert time.monotonic() < deadline, self.printed()
            time.sleep(0.02)

    def wait(self) -> int:
        try:
            return self.process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def result(run: Place) -> dict[str, Any]:
    """All that a run found, but for what the wall's clock says."""
    best, summary = (json.loads((run / name).read_text()) for name in ("best.json", "summary.json"))
    steps = [{key: value for key, value in step.items() if not key.endswith("seconds")} for step in summary["steps"]]
    model = ice_ray.load_pruned(str(run / "pruned_model")).state_dict()
    ratio = json.loads((run / "run.json").read_text())["config"]["ratio"]
    chosen = {key: best[key] for key in ("trial", "hyperparameters", "drop", "pruning_seconds", "cost")}
    ratios = (ratio, best["config"]["ratio"], summary["config"]["ratio"])
    return {"ratios": ratios, "best": chosen, "steps": steps, "model": model}


def differences(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """Of two results; nothing where they are the same, bit for bit."""
    named = [key for key in ("ratios", "best", "steps") if found[key] != expected[key]]
    model, theirs = found["model"], expected["model"]
    equal = model.keys() == theirs.keys() and all(torch.equal(model[key], theirs[key]) for key in theirs)
    return ", ".join([*named, *([] if equal else ["model"])])


def _copy(folder: Path, run: Place) -> None:
    """With the claim that the killed job has left there."""
    if isinstance(run, Path):
        shutil.copytree(folder, run)
        return
    for file in (path for path in folder.rglob("*") if path.is_file()):
        place = run
        for part in file.relative_to(folder).parts:
            place = place / part
        place.write_bytes(file.read_bytes())


@contextmanager
def arena(address: str = "") -> Iterator[Arena]:
    """With its undisturbed runs."""
    with tempfile.TemporaryDirectory(prefix="duels-") as folder:
        found = Arena(Path(folder), address)
        found.prepare()
        yield found
