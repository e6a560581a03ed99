"""Stage 1 alone: search the hyperparameters."""

from ice_ray.config.run import RunConfig
from ice_ray.workflow.jobs import run, search_job

if __name__ == "__main__":
    raise SystemExit(run(search_job, RunConfig, "ice_search.py"))
