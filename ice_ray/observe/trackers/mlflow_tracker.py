"""MLflow: an experiment called after the run, with a run for every trial and one for the replay."""

from __future__ import annotations

import logging
import os

# A server that is down must not hold a search up for minutes; read when mlflow is imported.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

from typing import Any

from ray.air.integrations.mlflow import MLflowLoggerCallback

from ice_ray.address import StoragePath
from ice_ray.errors import UserError
from ice_ray.observe.trackers.ledger import Ledger
from ice_ray.observe.trackers.runs import TrackedRuns

try:
    import mlflow
except ImportError:
    mlflow = None


_OUR_ID = "ice_ray.id"


class _Logger(MLflowLoggerCallback):
    """Ray's, but for runs that an earlier job of ours has begun: they bear our id, and go on."""

    def log_trial_start(self, trial: Any) -> None:
        client = mlflow.tracking.MlflowClient(self.tracking_uri, self.registry_uri)
        named = f"tags.`{_OUR_ID}` = '{trial.trial_id}'"
        for run in client.search_runs([self.mlflow_util.experiment_id], named, max_results=1):
            self._trial_runs[trial] = run.info.run_id
            client.update_run(run.info.run_id, status="RUNNING")
        self.tags = {**(self.tags or {}), _OUR_ID: trial.trial_id}
        super().log_trial_start(trial)


def check() -> None:
    """Raises UserError: the extra is missing, or what MLFLOW_TRACKING_URI names does not answer."""
    if mlflow is None:
        raise UserError("--log-to mlflow needs the extra: pip install 'ice_ray[mlflow]'")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        mlflow.tracking.MlflowClient().search_experiments(max_results=1)
    except Exception as error:  # of every kind of store, and of what stands between
        uri = mlflow.get_tracking_uri()
        raise UserError(f"--log-to mlflow: '{uri}' (MLFLOW_TRACKING_URI) cannot be used ({error})") from error


def open_tracker(run: str, folder: StoragePath) -> TrackedRuns:
    """Where MLFLOW_TRACKING_URI says, and under the experiment that MLFLOW_EXPERIMENT_NAME or _ID names, if any."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or run
    logger = _Logger(
        mlflow.get_tracking_uri(), registry_uri=mlflow.get_registry_uri(), experiment_name=name, tags={"run": run}
    )
    return TrackedRuns("mlflow", logger, run, folder, Ledger(folder / "mlflow.json"))
