"""Checkpoints in a bucket, where nothing can be renamed: one counts once the last of its files is there."""

import pytest
from test_checkpoints import put, taken

from ice_ray.errors import RunError
from ice_ray.replay.checkpoint import Checkpoints, ReplayProgress


@pytest.fixture
def checkpoints(bucket, tmp_path):
    return Checkpoints(bucket / tmp_path.name / "replay")


def test_it_goes_on_with_what_is_furthest_on(checkpoints, executor):
    put(checkpoints, executor, "b", taken(executor, 1))
    progress = taken(executor, 2)
    far = put(checkpoints, executor, "a", progress)
    assert checkpoints.newest() == (far, [])
    found, snapshot, _ = ReplayProgress.load(checkpoints.named("checkpoint_a"))
    assert found.state == progress.state
    assert snapshot.id == progress.state.snapshot


def test_nothing_is_left_on_this_machine(checkpoints, executor):
    unfinished = checkpoints.begin(1)
    taken(executor, 1).save(unfinished, executor)
    assert checkpoints.newest() == (None, [])
    checkpoints.finish(unfinished, "checkpoint_1")
    assert not unfinished.exists()


@pytest.mark.parametrize("missing", ["progress.json", "snapshot.safetensors"])
def test_what_was_cut_short_or_half_removed_counts_for_nothing(checkpoints, executor, missing):
    """The file with the digests is put there last; without it nothing was damaged, only begun."""
    first = put(checkpoints, executor, "1", taken(executor, 1))
    second = put(checkpoints, executor, "2", taken(executor, 2))
    (second / missing).unlink()
    with pytest.raises(RunError):
        ReplayProgress.load(second)
    damaged = [] if missing == "progress.json" else [second]
    assert checkpoints.newest() == (first, damaged)
    assert checkpoints.tidy() == damaged
    assert not second.exists()


def test_other_bits_are_noticed(checkpoints, executor):
    path = put(checkpoints, executor, "1", taken(executor, 1)) / "snapshot.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x80
    path.write_bytes(bytes(content))
    assert checkpoints.newest() == (None, [path.parent])


def test_tidy_leaves_the_two_newest_and_not_train_s_list(checkpoints, executor):
    paths = [put(checkpoints, executor, str(steps), taken(executor, steps)) for steps in (1, 2, 3)]
    (paths[0].parent / "checkpoint_manager_snapshot.json").write_bytes(b'{"half')
    assert checkpoints.tidy() == []
    assert list(paths[0].parent.iterdir()) == paths[1:]
