"""MLflow: an experiment called after the run, with a run for every trial and one for the replay."""

from __future__ import annotations

import logging
import os

# A server that is down must not hold a search up for minutes; read when mlflow is imported.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

from ray.air.integrations.mlflow import MLflowLoggerCallback

from ice_ray.address import Place
from ice_ray.errors import UserError
from ice_ray.observe.trackers.runs import TrackedRuns

try:
    import mlflow
except ImportError:
    mlflow = None


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


def open_tracker(run: str, folder: Place) -> TrackedRuns:
    """Where MLFLOW_TRACKING_URI says, and under the experiment that MLFLOW_EXPERIMENT_NAME or _ID names, if any."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or run
    logger = MLflowLoggerCallback(
        mlflow.get_tracking_uri(), registry_uri=mlflow.get_registry_uri(), experiment_name=name, tags={"run": run}
    )
    return TrackedRuns("mlflow", logger, run, folder)
