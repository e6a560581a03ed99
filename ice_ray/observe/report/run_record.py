"""A run as its folder tells it, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ice_ray.hyperparameters import NEVER, Hyperparameters
from ice_ray.objectives import Candidate
from ice_ray.observe.outcome import final_epochs
from ice_ray.observe.trials_table import TrialRecord
from ice_ray.pipelines.base import FinalConfig
from ice_ray.pipelines.harm import Harm, harm_of, harms_of
from ice_ray.pipelines.records import PipelineState, StepRecord


@dataclass(frozen=True)
class RunRecord:
    """What stage 1 found and, where it has been run, what stage 2 made of it.

    Attributes:
        name: the run's, for people.
        folder: where it lies, as one would type it.
        best: what best.json holds.
        trials: what trials.parquet holds.
        summary: what summary.json holds; None before stage 2 has ended.
        commands: what made it, in order.
        options: all that it was told, by the options' names.
        kind: of its hyperparameters; None where its pipeline is not importable here.
    """

    name: str
    folder: str
    best: Mapping[str, Any]
    trials: list[TrialRecord]
    summary: Mapping[str, Any] | None
    commands: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: type[Hyperparameters] | None = None

    @property
    def told(self) -> Mapping[str, Any]:
        """The later of the two files: both hold the configuration and the versions."""
        return self.best if self.summary is None else self.summary

    @property
    def config(self) -> Mapping[str, Any]:
        """Every option, nested as they are."""
        config: Mapping[str, Any] = self.told["config"]
        return config

    @cached_property
    def candidates(self) -> list[Candidate]:
        """The finished trials, their seconds on the clock that the search used."""
        return [
            Candidate(trial.index, self.seconds(trial), trial.records[-1].drop, trial.records[-1].unpruned_share)
            for trial in self.trials
            if not trial.failure and trial.records
        ]

    def seconds(self, trial: TrialRecord) -> float:
        """PT of eq. 2 of a trial, on the search's clock."""
        state = PipelineState("", trial.records)
        return state.pruning_seconds(self.best["clock"], self.best["flops_per_second"])

    @cached_property
    def places(self) -> list[str]:
        """Every device that trials ran on, with its node."""
        return sorted({trial.place for trial in self.trials if trial.records})

    @property
    def winner(self) -> TrialRecord:
        """The trial that the search chose."""
        return self._trial(self.best["trial"])

    @property
    def shown(self) -> TrialRecord:
        """The trial that was replayed, which need not be the winner; without stage 2 the winner."""
        if self.summary is None:
            return self.winner
        told = self.summary["hyperparameters"].items()
        point = {name: NEVER if value == "never" else value for name, value in told}
        return next((trial for trial in self.trials if trial.hyperparameters == point), self.winner)

    @property
    def steps(self) -> tuple[StepRecord, ...]:
        """Of stage 2; before it has ended, of the winning trial."""
        if self.summary is None:
            return self.winner.records
        return tuple(StepRecord(**record) for record in self.summary["steps"])

    @property
    def original_accuracy(self) -> float:
        """Of the dense network on the images that decided about `steps`, percent."""
        return float(self.told["original_accuracy"])

    @property
    def never(self) -> bool:
        """Whether the drop from which on a step is fine-tuned is `never`."""
        return NEVER in self.shown.hyperparameters.values()

    @property
    def threshold(self) -> float | None:
        """The drop, in points, from which on a step is followed by a fine-tune; None where the pipeline has none, does
        not ask (`--no-threshold`) or never fine-tunes.
        """
        if self.never or not self.config.get("threshold", True):
            return None
        return self.shown.hyperparameters.get("accuracy_drop_threshold")

    @property
    def limit(self) -> float | None:
        """The accuracy (percent) at or below which a step is fine-tuned; None where no network is so bad."""
        if self.threshold is None or self.threshold > self.original_accuracy:
            return None
        return self.original_accuracy - self.threshold

    def is_part(self, step: StepRecord) -> bool:
        """Whether only a part of the validation images was looked at after a step's removal."""
        return 0 < step.images_measured < self.most_images

    @cached_property
    def most_images(self) -> int:
        """Validation images, as far as the steps tell."""
        return max((step.images_measured for step in self.steps), default=0)

    @cached_property
    def final_epochs(self) -> int:
        """Of the training that stage 2 has ended with."""
        return 0 if self.summary is None else final_epochs(self.config)

    @cached_property
    def harms(self) -> list[Harm]:
        """What training has made worse in `steps`, and after them."""
        if self.summary is None:
            own = harm_of(self.steps, self.kind)
            return [] if own is None else [own]
        final, pruned = FinalConfig(**self.config.get("final", {})), self.summary["pruned"]
        return harms_of(self.steps, self.kind, final, pruned["validation_accuracy"], pruned["validation_images"])

    @cached_property
    def harmed(self) -> dict[int, Harm]:
        """The trials that training made worse, by index."""
        found = {trial.index: harm_of(trial.records, self.kind) for trial in self.trials}
        return {index: harm for index, harm in found.items() if harm is not None}

    @cached_property
    def of_fine_tunes(self) -> frozenset[str]:
        """The hyperparameters that decide something only where a step is fine-tuned."""
        if self.kind is None or final_epochs(self.config):  # whose rate and held layers are theirs too
            return frozenset()
        return frozenset().union(*map(self.kind.decided_by, self.kind.may_be_never()))

    def in_effect(self, trial: TrialRecord) -> dict[str, float]:
        """The hyperparameters of a trial that people are shown, by name."""
        own = trial.hyperparameters
        return own if self.kind is None else self.kind.from_mapping(own).in_effect

    def deciding(self, trial: TrialRecord) -> dict[str, float]:
        """The hyperparameters of a trial that decided something beside the others, those that say no among them."""
        idle = frozenset[str]() if self.kind is None else self.kind.from_mapping(trial.hyperparameters).idle
        if not trial.failure and not trial.fine_tunes:
            idle |= self.of_fine_tunes
        return {name: value for name, value in trial.hyperparameters.items() if name not in idle}

    def symbol(self, name: str) -> str:
        """What a hyperparameter is called for short."""
        return name if self.kind is None else self.kind.symbols().get(name, name)

    def _trial(self, index: int) -> TrialRecord:
        return next(trial for trial in self.trials if trial.index == index)
