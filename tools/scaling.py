"""How the grid's shared work spreads over more devices than a laptop has: recorded costs, the real scheduler.

    python tools/scaling.py

Replays `benchmarks/results/shared_work_segments.parquet` (what every trial of the 216-point grid asked for, and what
each piece took) through `ice_ray/trials/trial_queue.py`, which decides in a running search which trial a free device
goes on with. No time is given to starting processes, to messages or to fetching networks, so these are limits of the
schedule. A device whose trial has to wait takes another one that need not; where there is none it stands idle. Compared
with the critical path (the longest trial, one piece after the other) and with all work over the devices. No schedule
beats the latter; the former it may, by little: while a trial measures for its own threshold, another that has gone
ahead does what both need next.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from common import RESULTS, arguments, command, rules, table

from ice_ray.cache.actions import ActionRecord
from ice_ray.engine.actions import Outcome, UnprunedShare
from ice_ray.engine.cost import Cost
from ice_ray.engine.executor import Executor
from ice_ray.engine.network import DenseNetwork
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.pipelines.base import Pipeline, PipelineConfig
from ice_ray.pipelines.records import PipelineState, Preparation, StepRecord
from ice_ray.trials.trial_queue import Records, TrialQueue

DEVICES = (1, 2, 8, 64, 512, 4096)
ROOT = "root"
Trial = tuple[tuple[int, ...], ...]
"""A trial: per step the numbers of its segments."""


def record_of(segment: int, seconds: float) -> ActionRecord:
    """The action record that stands for a recorded segment; equal numbers, equal keys."""
    return ActionRecord(ROOT, UnprunedShare(cast(Any, str(segment))), Outcome(ROOT, None, Cost(seconds)))


@dataclass(frozen=True, kw_only=True)
class Recorded(Pipeline):
    """Asks for what a trial asked for, in its order."""

    trial: Trial
    config: PipelineConfig = PipelineConfig()
    hyperparameters: Hyperparameters = Hyperparameters()

    def is_pruned(self, executor: Executor, state: PipelineState) -> bool:
        return len(state.records) == len(self.trial)

    def step(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        for segment in self.trial[len(state.records)]:
            executor.run(ROOT, record_of(segment, 0.0).action)
        return PipelineState(ROOT, (*state.records, cast(StepRecord, None)))


class RecordsSoFar:
    """In the place of the action cache."""

    def __init__(self) -> None:
        self.so_far: list[ActionRecord] = []

    def records(self, since: int) -> list[ActionRecord]:
        """Those from the `since`-th on."""
        return self.so_far[since:]


class Simulation:
    """Devices, the queue, and a clock that jumps from one end of a segment to the next."""

    def __init__(self, trials: Sequence[Trial], seconds: Sequence[float], devices: int) -> None:
        self._seconds, self._free = seconds, devices
        cache = RecordsSoFar()
        self._queue = TrialQueue(
            cast(DenseNetwork, None),
            0,
            lambda _: ROOT,
            cast(Preparation, None),
            lambda trial: Recorded(trial=cast(Trial, trial)),
            cast(Records, cache),
            lambda: devices,
        )
        self._records = cache.so_far
        self._segments = {index: [s for step in trial for s in step] for index, trial in enumerate(trials)}
        for index, trial in enumerate(trials):
            self._queue.add(index, cast(Hyperparameters, trial))
        self._done: set[int] = set()
        self._at_work: dict[int, int] = {}
        self._ends: list[tuple[float, int]] = []
        self._idle: list[int] = []
        self.now = 0.0
        self.executed = 0

    def run(self) -> float:
        """The makespan in seconds."""
        self._give_out()
        while self._ends:
            self.now, segment = heapq.heappop(self._ends)
            trial = self._at_work.pop(segment)
            self._done.add(segment)
            self.executed += 1
            self._records.append(record_of(segment, self._seconds[segment]))
            waited, self._idle = self._idle, []
            for each in (trial, *waited):
                self._go_on(each)
            self._give_out()
        return self.now

    def _give_out(self) -> None:
        """Free devices take trials that need not wait."""
        while self._free and (chosen := self._queue.ready()) is not None:
            self._queue.start(chosen)
            self._free -= 1
            self._go_on(chosen)

    def _go_on(self, trial: int) -> None:
        """A trial that has a device: its next segment, or the device for another."""
        following = next((s for s in self._segments[trial] if s not in self._done), None)
        if following is None:
            self._queue.end(trial)
            self._free += 1
        elif following not in self._at_work:
            self._at_work[following] = trial
            heapq.heappush(self._ends, (self.now + self._seconds[following], following))
        elif self._queue.ready() is not None:
            self._queue.pause(trial)
            self._free += 1
            self._give_out()
        else:
            self._idle.append(trial)


def recorded() -> tuple[list[Trial], list[float]]:
    """The trials of the grid, and the seconds of every segment."""
    rows = pq.read_table(RESULTS / "shared_work_segments.parquet").to_pylist()
    trials: dict[int, dict[int, list[int]]] = {}
    seconds: dict[int, float] = {}
    for row in rows:
        trials.setdefault(row["trial"], {}).setdefault(row["step"], []).append(row["segment"])
        seconds[row["segment"]] = row["alone_seconds"]
    ordered = [tuple(tuple(steps[step]) for step in sorted(steps)) for _, steps in sorted(trials.items())]
    return ordered, [seconds[segment] for segment in range(len(seconds))]


def main() -> None:
    """Simulate and write the page."""
    options = arguments(__doc__, RESULTS).parse_args()
    trials, seconds = recorded()
    total = sum(seconds)
    critical = max(sum(seconds[segment] for step in trial for segment in step) for trial in trials)
    lines = [
        [
            "devices",
            "makespan (s)",
            "all work / devices (s)",
            "critical path (s)",
            "makespan / greater of the two",
            "speed-up",
        ]
    ]
    for devices in DEVICES:
        simulation = Simulation(trials, seconds, devices)
        makespan = simulation.run()
        assert simulation.executed == len(seconds), "every segment once"
        lines.append(
            [
                f"{devices:,}",
                f"{makespan:,.1f}",
                f"{total / devices:,.1f}",
                f"{critical:,.1f}",
                f"{makespan / max(critical, total / devices):.2f}",
                f"{total / makespan:.1f}",
            ]
        )
    (options.results / "scaling.md").write_text(f"""# The shared grid on more devices

`{command()}`

{rules(__doc__)}

{len(trials)} trials, {len(seconds):,} segments, {total:,.0f} s of work; a simulation, once (it has no chance in it).

{table(lines)}
""")


if __name__ == "__main__":
    main()
