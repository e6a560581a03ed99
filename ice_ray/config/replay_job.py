"""The options of the job that replays a search's winner alone."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic

from ice_ray.address import storage_path
from ice_ray.config.run import Options, PipelineOptions, config_from_dict
from ice_ray.errors import UserError
from ice_ray.observe.trackers import Tracker
from ice_ray.pipelines.ice import IceConfig
from ice_ray.replay.config import ReplayConfig


@dataclass(frozen=True)
class ReplayJobConfig(Generic[Options]):
    """Replay the winner of a finished search, or any of its trials, on all the data: stage 2 alone."""

    config: str
    """best.json, as a search wrote it, or its address; the replay's results go beside it, its options default to the
    search's."""
    trial: int | None = None
    """Replay this trial of the search, into replays/trial-NNN of that folder. [default: the winner]"""
    options: PipelineOptions[Options] = field(default_factory=IceConfig)  # type: ignore[assignment]
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    resume: bool = False
    """Go on with a replay that was interrupted there."""
    wait_for_resources: float = 15.0
    """Minutes to wait for nodes that the cluster's autoscaler has yet to add."""
    log_to: tuple[Tracker, ...] = ()
    """Where the replay is logged besides: mlflow, wandb, or both; see jobs/ice_prune.py."""
    verbose: bool = False
    """Show Ray's own log lines too."""


def replay_defaults(path: str) -> ReplayJobConfig[Any]:
    """The defaults of a replay of `path`: the pipeline's and stage 2's options as its search was given them."""
    with _read_for_good_later():
        searched = config_from_dict(_searched(path), path)
        return ReplayJobConfig(path, options=searched.options, replay=searched.replay)
    return ReplayJobConfig(path)


def searched_pipeline(path: str) -> str | None:
    """The pipeline whose search wrote `path`; None where that cannot be read."""
    with _read_for_good_later():
        return str(_searched(path)["pipeline"])
    return None


def _searched(path: str) -> Any:
    return json.loads(storage_path(path).read_now())["config"]


def _read_for_good_later() -> suppress:
    """Reading the file for good says what is wrong with it."""
    return suppress(OSError, ValueError, KeyError, TypeError, RecursionError, UserError)
