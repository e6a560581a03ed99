"""The options of the job that replays a search's winner alone."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ice_ray.address import place
from ice_ray.errors import UserError
from ice_ray.observe.trackers import Tracker
from ice_ray.replay.config import ReplayConfig


@dataclass(frozen=True)
class ReplayJobConfig:
    """Replay the winner of a finished search, or any of its trials, on all the data: stage 2 alone."""

    config: str
    """best.json, as a search wrote it, or its address; the replay's results go beside it, its options default to the
    search's."""
    trial: int | None = None
    """Replay this trial of the search, into replays/trial-NNN of that folder. [default: the winner]"""
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    resume: bool = False
    """Go on with a replay that was interrupted there."""
    wait_for_resources: float = 15.0
    """Minutes to wait for nodes that the cluster's autoscaler has yet to add."""
    log_to: tuple[Tracker, ...] = ()
    """Where the replay is logged besides: mlflow, wandb, or both; see jobs/ice_prune.py."""
    verbose: bool = False
    """Show Ray's own log lines too."""


def replay_defaults(path: str) -> ReplayJobConfig:
    """The defaults of a replay of `path`: stage 2's options as its search was given them."""
    with _read_for_good_later():
        return ReplayJobConfig(path, replay=ReplayConfig(**_searched(path)["replay"]))
    return ReplayJobConfig(path)


def replay_pipeline(path: str) -> str:
    """The pipeline that was searched; empty where the file does not say."""
    with _read_for_good_later():
        return str(_searched(path)["pipeline"])
    return ""


def _searched(path: str) -> Any:
    return json.loads(place(path).read_now())["config"]


def _read_for_good_later() -> suppress:
    """Reading the file for good says what is wrong with it."""
    return suppress(OSError, ValueError, KeyError, TypeError, RecursionError, UserError)
