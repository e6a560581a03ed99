"""Show what can be pruned in a model."""

from ice_ray.config.jobs import InspectConfig
from ice_ray.workflow.inspection import inspect_job
from ice_ray.workflow.jobs import run

if __name__ == "__main__":
    raise SystemExit(run(inspect_job, InspectConfig, "ice_inspect.py"))
