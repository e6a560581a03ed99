"""Stage 2 alone: replay a search's winner."""

from ice_ray.config.jobs import ReplayJobConfig
from ice_ray.workflow.jobs import replay_job, run

if __name__ == "__main__":
    raise SystemExit(run(replay_job, ReplayJobConfig, "ice_replay.py"))
