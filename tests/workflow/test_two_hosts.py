"""Both stages over two network stacks: nothing but the wire and the storage is between them."""

import pyarrow.parquet as pq
import pytest
import torch
from jobs_at_work import command, decisions, finish, pruned_weights
from two_hosts import two_hosts, why_impossible

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
SMALL = ["--preset", "small", "--replay.workers", "2", "--replay.cpus", "1"]
LONG = ["--search.trials", "6", "--search.subsample", "0.9"]
# Long enough for an actor on the other host to come into it.
LONGER = [*LONG, "--search.no-share-work"]


@pytest.fixture(scope="module")
def both():
    if reason := why_impossible():
        pytest.skip(reason)
    with two_hosts() as running:
        yield running


def test_the_result_is_that_of_one_machine(both, tmp_path, monkeypatch):
    ended = both.run(*command("ice_prune.py", tmp_path, "--name", "two", *SMALL, *LONGER))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    trials = pq.read_table(tmp_path / "two" / "trials.parquet")
    assert set(trials["node"].to_pylist()) == {both.head.name, both.other.name}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    weights = ["--weights", str(tmp_path / "two" / "dense.safetensors")]
    finish(command("ice_prune.py", tmp_path, "--name", "one", *weights, *SMALL, *LONG))
    assert decisions(tmp_path / "two") == decisions(tmp_path / "one")
    own, theirs = pruned_weights(tmp_path / "two"), pruned_weights(tmp_path / "one")
    assert all(torch.equal(own[key], theirs[key]) for key in theirs)


def test_a_node_that_does_not_see_the_storage_is_named(both, tmp_path):
    """A folder of the head's alone: the other host has an empty disk there."""
    hidden = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {tmp_path} && exec "$@"', "sh"]
    ended = both.run(*hidden, *command("ice_prune.py", tmp_path, "--name", "hidden", *SMALL))
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert f"--storage: node {both.other.name} does not see" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
