"""Prune a trained classifier: both stages."""

from ice_ray.config.run import RunConfig
from ice_ray.workflow.jobs import prune_job, run

if __name__ == "__main__":
    raise SystemExit(run(prune_job, RunConfig, "ice_prune.py"))
