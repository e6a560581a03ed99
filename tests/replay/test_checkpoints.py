"""Which checkpoint a replay goes on from, whatever has become of the files. With a real executor."""

import os

import pytest

from ice_ray.engine.actions import Measure, Prune
from ice_ray.errors import RunError
from ice_ray.pipelines.records import PipelineState, Preparation, StepRecord
from ice_ray.replay.checkpoint import Checkpoints, ReplayProgress

PREPARATION = Preparation(90.0, {}, (), 0.0, 0.0)


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "replay")


def taken(executor, steps: int, finished: bool = False) -> ReplayProgress:
    """Where a replay stands that has removed a filter in each step."""
    layer, snapshot = executor.network.units[0].layer, executor.root
    for _ in range(steps):
        snapshot = executor.run(snapshot, Prune(((layer, (0,)),))).snapshot
    record = StepRecord(step=1, layers=layer, unpruned_share=0.9, accuracy_before=90.0, accuracy=80.0, drop=10.0)
    return ReplayProgress(PipelineState(snapshot, (record,) * steps), PREPARATION, finished)


def put(checkpoints, executor, name: str, progress: ReplayProgress):
    unfinished = checkpoints.begin(len(progress.state.records))
    progress.save(unfinished, executor)
    return checkpoints.finish(unfinished, f"checkpoint_{name}")


def test_the_newest_is_the_one_that_is_furthest_on_whatever_its_name(checkpoints, executor):
    put(checkpoints, executor, "b", taken(executor, 1))
    far = put(checkpoints, executor, "a", taken(executor, 2))
    assert checkpoints.newest() == (far, [])
    done = put(checkpoints, executor, "0", taken(executor, 2, finished=True))
    assert checkpoints.newest() == (done, [])


@pytest.mark.parametrize("file", ["snapshot.safetensors", "progress.json"])
@pytest.mark.parametrize("harm", ["cut", "other bits", "gone"])
def test_what_is_damaged_is_passed_over_and_named(checkpoints, executor, file, harm):
    first = put(checkpoints, executor, "1", taken(executor, 1))
    second = put(checkpoints, executor, "2", taken(executor, 2))
    path = second / file
    content = bytearray(path.read_bytes())
    if harm == "cut":
        os.truncate(path, len(content) // 2)
    elif harm == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 0x80  # no text, and other weights
        path.write_bytes(content)
    with pytest.raises(RunError):
        ReplayProgress.load(second)
    assert checkpoints.newest() == (first, [second])


def test_what_was_not_finished_counts_for_nothing(checkpoints, executor):
    unfinished = checkpoints.begin(1)
    taken(executor, 1).save(unfinished, executor)
    assert checkpoints.newest() == (None, [])
    checkpoints.tidy()
    assert not unfinished.exists()


def test_tidy_leaves_the_two_newest_and_not_train_s_list(checkpoints, executor):
    paths = [put(checkpoints, executor, str(steps), taken(executor, steps)) for steps in (1, 2, 3)]
    damaged = put(checkpoints, executor, "4", taken(executor, 3))
    (damaged / "progress.json").write_text("{")
    folder = damaged.parent
    (folder / "checkpoint_manager_snapshot.json").write_text('{"half')
    assert checkpoints.tidy() == [damaged]
    assert sorted(folder.iterdir()) == paths[1:]


def test_it_goes_on_with_the_network_that_was_saved(checkpoints, executor):
    progress = taken(executor, 2)
    before = executor.run(progress.state.snapshot, Measure()).value
    path = put(checkpoints, executor, "2", progress)
    found, snapshot, _ = ReplayProgress.load(path)
    executor.store.keep_only(())
    executor.store.put(snapshot)
    assert found.state == progress.state
    assert executor.run(found.state.snapshot, Measure()).value == before
