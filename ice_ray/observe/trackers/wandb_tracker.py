"""Weights & Biases: a group called after the run, with a run for every trial and one for the replay."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# Its own lines would go through the live view; read when wandb is imported.
os.environ.setdefault("WANDB_SILENT", "true")

import ray
from ray.air.integrations.wandb import WandbLoggerCallback
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ice_ray.address import StoragePath, storage_path
from ice_ray.errors import UserError
from ice_ray.observe.trackers.ledger import Ledger
from ice_ray.observe.trackers.runs import TrackedRuns

try:
    import wandb
except ImportError:
    wandb = None

_UPLOAD_SECONDS = 120
_OFFLINE = "offline-run-"


class _Logger(WandbLoggerCallback):
    """Ray's, but for the processes that it logs from, one a run: they get all of wandb's variables, where Ray hands on
    the key alone; and none is started again after it died, of which Ray would warn, a line for each.

    A process that is killed takes with it what it had yet to write. So a run that is gone on with is told anew: a
    server ignores the steps that it has, and files that nobody has uploaded yet make place for whole ones.

    Args:
        files: where they lie.
    """

    def __init__(self, files: Path, **named: Any) -> None:
        super().__init__(dir=str(files), **named)
        self._files = files

    def log_trial_start(self, trial: Any) -> None:
        for folder in self._files.glob(f"wandb/{_OFFLINE}*-{trial.trial_id}"):
            folder.rename(folder.with_name(f"superseded-{folder.name.removeprefix(_OFFLINE)}"))
        super().log_trial_start(trial)

    def setup(self, *arguments: Any, **named: Any) -> None:
        super().setup(*arguments, **named)  # type: ignore[no-untyped-call]
        here = ray.get_runtime_context().get_node_id()
        variables = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
        self._remote_logger_class = ray.remote(  # type: ignore[call-overload]  # no strategy by node is among them
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
            runtime_env={"env_vars": variables},
        )(self._logger_actor_cls)


def check() -> None:
    """Raises UserError: the extra is missing, or there is no key and uploading has not been turned off."""
    if wandb is None:
        raise UserError("--log-to wandb needs the extra: pip install 'ice_ray[wandb]'")
    if os.environ.get("WANDB_MODE") not in ("offline", "disabled") and not wandb.login(prompt=False):
        raise UserError("--log-to wandb: no API key; run `wandb login`, set WANDB_API_KEY, or set WANDB_MODE=offline")


def open_tracker(run: str, folder: StoragePath) -> TrackedRuns:
    """Under the project that WANDB_PROJECT names, with files where WANDB_DIR says, else in the run's folder; where that
    is an address, in the working directory, as is wandb's own way.
    """
    files = Path(os.environ.get("WANDB_DIR") or folder.local or ".").resolve()
    files.mkdir(parents=True, exist_ok=True)
    logger = _Logger(
        files,
        project=os.environ.get("WANDB_PROJECT") or "ice_ray",
        group=run,
        upload_timeout=_UPLOAD_SECONDS,
        reinit="finish_previous",  # Ray's own value is one that wandb warns of
        resume="allow",  # of a run whose driver died, the next one goes on with it
        settings={"silent": True, "console": "off"},
    )
    return TrackedRuns("wandb", logger, run, storage_path(files), Ledger(folder / "wandb.json", whole=True), late=True)
