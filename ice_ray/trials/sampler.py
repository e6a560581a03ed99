"""The next point of a search, from what its trials have shown so far: Optuna's samplers, asked without memory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from ice_ray.hyperparameters import NEVER, Hyperparameters
from ice_ray.objectives import Values
from ice_ray.randomness import seed_of
from ice_ray.trials.space import SearchBounds

SamplerName = Literal["tpe", "gp"]
Outcome = Values | None
_MOST_RANDOM_TRIALS = 10
_TIMES_ASKED, _DRAWN = 3, 256


@dataclass(frozen=True)
class Sampling:
    """Where and how a sampler looks.

    Attributes:
        algorithm: Optuna's tree-structured Parzen estimator (TPE), or its Gaussian process with the expected
            improvement (GP).
        bounds: where points may lie.
        total: trials of the search.
        seed: the run's.
        known: the points that the search begins with. One that begins with another's winner does not draw, of the same
            seed, what that one has drawn.
    """

    algorithm: SamplerName
    bounds: SearchBounds
    total: int
    seed: int
    known: tuple[Hyperparameters, ...] = ()

    @property
    def random_trials(self) -> int:
        """How many trials must have finished before the model is asked; until then points are drawn at random.

        A third of all, 2 to 10: Optuna's own 10 would leave a small search no trial to learn in.
        """
        return min(_MOST_RANDOM_TRIALS, max(2, math.ceil(self.total / 3)))

    def suggest(self, history: Sequence[tuple[Hyperparameters, Outcome]], dimensions: int) -> Hyperparameters:
        """The point of the trial after those of `history`, which are in their order.

        It follows from the seed, the trial's index and the history alone: a search that was resumed asks as the
        unbroken one would have. It is none of those of the history, as long as there are others.

        A trial without an outcome, running or failed, keeps others away from it. Optuna's own way with a failed one,
        to forget it, would lead samplers back into a region where trials diverge.

        Args:
            dimensions: values of an outcome; all are minimised.
        """
        tried = {point.settled for point, _ in history}
        asked = (self._ask(history, dimensions, again) for again in range(_TIMES_ASKED))
        first = next(asked)
        # A model that is sure of a corner, or of one of few whole numbers, asks for it time and again.
        others = chain([first], asked, self.bounds.draw(_DRAWN, self._seed(len(history))))
        return next((point for point in others if point.settled not in tried), first)

    def _ask(self, history: Sequence[tuple[Hyperparameters, Outcome]], dimensions: int, again: int) -> Hyperparameters:
        distributions, choices = self._distributions(), self.bounds.choices
        with _quietly(), _one_thread():
            sampler = self._sampler(self._seed(len(history), *([again] if again else [])))
            study = optuna.create_study(directions=["minimize"] * dimensions, sampler=sampler)
            study.add_trials([self._told(point, outcome, distributions) for point, outcome in history])
            asked = study.ask(distributions).params
            values = {name: value for name, value in asked.items() if name in self.bounds.ranges}
            return self.bounds.point(values, [name for name in choices if asked[_choice(name)]])

    def _seed(self, index: int, *others: int) -> int:
        return seed_of(self.seed, self.algorithm, index, *(str(point.as_dict()) for point in self.known), *others)

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        seed %= 2**32  # what numpy's old generators take
        if self.algorithm == "tpe":
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.random_trials)
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=self.random_trials)

    def _distributions(self) -> dict[str, BaseDistribution]:
        rates, whole = self.bounds.kind.logarithmic(), self.bounds.kind.whole()
        choices = {_choice(name): CategoricalDistribution([False, True]) for name in self.bounds.choices}
        return choices | {
            name: FloatDistribution(*bounds, step=1.0)
            if name in whole
            else FloatDistribution(*bounds, log=name in rates and 0 < bounds[0] < bounds[1])
            for name, bounds in self.bounds.ranges.items()
        }

    def _told(
        self, point: Hyperparameters, outcome: Outcome, distributions: dict[str, BaseDistribution]
    ) -> FrozenTrial:
        """A trial of the history. What decided nothing in it, TPE is not told; the Gaussian process, which looks at
        what all trials have alone, is told of the middle.
        """
        state = TrialState.RUNNING if outcome is None else TrialState.COMPLETE
        own, idle, middle = point.as_dict(), self.bounds.idle_in(point), self.bounds.middle.as_dict()
        told: dict[str, float | bool] = {}
        for name in self.bounds.ranges:
            if own[name] != NEVER and name not in idle:
                told[name] = own[name]
            elif self.algorithm == "gp":
                told[name] = middle[name]
        told |= {_choice(name): own[name] == NEVER for name in self.bounds.choices}
        known = {name: distributions[name] for name in told}
        return create_trial(state=state, values=outcome, params=told, distributions=known)


def _choice(name: str) -> str:
    """What samplers call the question whether a hyperparameter is never."""
    return f"{name} is never"


@contextmanager
def _one_thread() -> Iterator[None]:
    """A small Gaussian process gains nothing from more, trials want the cores, and bits depend on the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without Optuna's lines: that a study was made, what is experimental, which optional package is missing."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
