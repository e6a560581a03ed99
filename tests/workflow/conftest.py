"""A finished run, and a Ray session for jobs that run in this process."""

from pathlib import Path

import pytest
from jobs_at_work import SEARCH, command, finish

from ice_ray.cluster.session import ray_session


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """An undisturbed run of the job's command line, and what it printed."""
    folder = tmp_path_factory.mktemp("runs")
    printed = finish(command("ice_prune.py", folder, "--name", "whole", *SEARCH))
    return folder / "whole", printed


@pytest.fixture(scope="module")
def cluster():
    """Ray on this machine."""
    with ray_session():
        yield
