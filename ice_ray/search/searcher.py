"""Points that are found while the search runs, for Tune."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.tune.search import Searcher

from ice_ray.cluster.session import placements
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.objectives import Candidate, Objective
from ice_ray.search.config import SearchConfig
from ice_ray.search.point_log import PointLog
from ice_ray.search.sampler import Outcome, Sampling


class SamplingSearcher(Searcher):
    """Gives Tune the open points of an interrupted search first, then asks the sampler for those that are missing.

    A new point is written to the log before Tune hears of it. One is asked for only when a trial can start at once,
    so that it knows every trial which has ended by then.

    Args:
        ended: what became of the trials that an earlier part of this run ended; None for those that failed.
    """

    def __init__(
        self,
        sampling: Sampling,
        objective: Objective,
        log: PointLog,
        ended: Mapping[int, Candidate | None],
        config: SearchConfig,
        gpus: float,
    ) -> None:
        super().__init__()
        self._sampling, self._objective, self._log = sampling, objective, log
        self._ended, self._live = dict(ended), dict[str, int]()
        self._config, self._gpus = config, gpus

    @property
    def missing(self) -> int:
        """Trials that have yet to end."""
        return self._sampling.total - len(self._ended)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if len(self._live) >= self._places():
            return None
        points = self._log.load()
        taken = {*self._ended, *self._live.values()}
        waiting = [index for index in range(len(points)) if index not in taken]
        if waiting:
            index, point = waiting[0], points[waiting[0]]
        elif len(points) < self._sampling.total:
            point = self._sampling.suggest(self._history(points), self._objective.dimensions)
            index = self._log.append(point)
        else:
            return None
        self._live[trial_id] = index
        return {"point": {"index": index, "hyperparameters": point.as_dict()}}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        index = self._live.pop(trial_id, None)
        if index is None:
            return  # told already
        if error or not result or result.get("failure"):
            self._ended[index] = None
        else:
            self._ended[index] = Candidate(index, result["pruning_seconds"], result["drop"])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the log and the trials' own progress are what a resumed search reads."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a resumed search is a new searcher."""

    def _places(self) -> int:
        """Trials that may run at once; nodes that join later count."""
        fitting = max(1, placements(self._config.cpus, self._gpus))
        return min(fitting, self._config.concurrent or fitting)

    def _history(self, points: tuple[Hyperparameters, ...]) -> list[tuple[Hyperparameters, Outcome]]:
        usable = [c for c in self._ended.values() if c is not None and c.is_usable and self._objective.accepts(c)]
        outcomes = dict(zip((c.index for c in usable), self._objective.values(usable), strict=True))
        return [(point, outcomes.get(index)) for index, point in enumerate(points)]
