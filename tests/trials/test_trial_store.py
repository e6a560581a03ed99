"""Where trials stand, on disk: what cannot be read is as if it were not there."""

import pytest

from ice_ray.pipelines.records import PipelineState
from ice_ray.trials.trial_store import TrialProgress, TrialStore


def test_what_is_saved_is_read_back(tmp_path):
    store = TrialStore(tmp_path / "states")
    assert store.load(3) is None
    progress = TrialProgress(PipelineState("snapshot"), (True, False), finished=True, node="here")
    store.save(3, progress)
    assert store.load(3) == progress
    assert not store.drop_damaged(3)
    assert store.load(3) == progress


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"state": 1}', b"\xff\xfe", b'{"state": {}, "inherited": []}']
)
def test_what_cannot_be_read_is_dropped_once(tmp_path, content):
    store = TrialStore(tmp_path)
    store.save(0, TrialProgress(PipelineState("snapshot")))
    (path,) = tmp_path.glob("*.json")
    path.write_bytes(content)
    assert store.load(0) is None
    assert store.drop_damaged(0)
    assert not store.drop_damaged(0)
    assert not list(tmp_path.iterdir())
