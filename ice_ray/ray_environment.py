"""What Ray, and the libraries of its workers, read from the environment when they start. Imports nothing of Ray."""

from __future__ import annotations

import os

_SETTINGS = {
    # Under `uv run` Ray would pack the working directory and start every worker through uv: three times slower,
    # and where a worker cannot be started that way, jobs wait for ever. Workers are plain Python of this environment.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Our own callback writes TensorBoard; Tune's would write the same under other tags.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # How many trials may be starting at once. With a searcher of one's own it would be one; ours starts as many as fit.
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Ctrl-C must reach us: Tune's own handler ends the search as if it were complete.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A report of a worker waits until the one before it has been fetched, which happens at this pace (2 s by default).
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    # Ray would start workers at 15: beside other busy processes they get next to nothing, a job of a minute takes ten.
    "RAY_worker_niceness": "0",
    # Threads of one trial that wait for each other spin for microseconds, not milliseconds, then sleep: where trials
    # share cores, spinning takes them from whoever has work. OpenMP reads it at start.
    "GOMP_SPINCOUNT": "10000",
}
# Trials and workers work where the job does: a relative path of the user's code means the same to all of them.
os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)
