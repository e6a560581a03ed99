"""Real jobs, two on one run, in a folder and in a bucket: one is refused, the other is undisturbed.

    pytest -m long tests/claims --duels 50

fights so many, at all moments; tools/two_jobs.py writes a page about them.
"""

import dataclasses
from random import Random

import pytest
from duel import MOMENTS, Arena

from ice_ray.claims.claim import claim_of
from ice_ray.claims.owner import Owner

pytestmark = [pytest.mark.long, pytest.mark.timeout(0)]  # the jobs have deadlines of their own


def pytest_generate_tests(metafunc):
    if "number" in metafunc.fixturenames:
        metafunc.parametrize("number", range(metafunc.config.getoption("duels", 2)))


@pytest.fixture(scope="module")
def arena(bucket, tmp_path_factory) -> Arena:
    """The bucket is known to the jobs' environment."""
    return Arena(tmp_path_factory.mktemp("arena"))


@pytest.mark.parametrize("words", ["stage 1:", "stage 2:"])
def test_a_job_whose_claim_was_taken_ends_in_one_line(words, arena, tmp_path):
    """As one that slept for an hour, while a job on another host went on with its run."""
    job = arena.run(tmp_path, "taken", "ice_prune.py", "0.3")
    job.wait_for(words)
    successor = Owner.of(claim_of(tmp_path / "taken").read_bytes())
    successor = dataclasses.replace(successor, id="0123456789abcdef", host="elsewhere")
    claim_of(tmp_path / "taken").write_bytes(successor.content)
    assert job.wait() == 1
    said = job.printed()
    last = said.strip().splitlines()[-1]
    assert "ice_prune.py: " in last and "on host elsewhere" in last and "has taken it over" in last
    assert "Traceback" not in said and "interrupted" not in said
    assert not (tmp_path / "taken" / "summary.json").exists()
    assert claim_of(tmp_path / "taken").read_bytes() == successor.content  # it is not this job's to give back


def test_one_is_refused_and_the_other_is_undisturbed(number, arena, bucket, tmp_path):
    """Of two duels, one begins both jobs at once, in a folder; in one both go on with a killed run, in a bucket."""
    moments = list(MOMENTS)
    moment = moments[-(number % len(moments))]
    storage = tmp_path if (number + number // len(moments)) % 2 == 0 else bucket / "duels"
    fought = arena.fight(storage, f"duel-{number}", moment, Random(f"duel {number}"))
    assert not fought.fault, f"{moment}, after {fought.pause} s: {fought.fault}"
