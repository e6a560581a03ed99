"""A finished run, and a Ray session for jobs that run in this process."""

from pathlib import Path

import pytest
from jobs_at_work import SEARCH, command, ended_well

from ice_ray.cluster.session import ray_session


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """An undisturbed run of the job's command line, and what it printed; what it complained of is in a file beside."""
    folder = tmp_path_factory.mktemp("runs")
    ended = ended_well(command("ice_prune.py", folder, "--name", "whole", *SEARCH))
    (folder / "complaints").write_text(ended.stderr)
    return folder / "whole", ended.stdout


@pytest.fixture(scope="package")
def cluster():
    """Ray on this machine."""
    with ray_session():
        yield
