"""What a search goes on from, in a bucket: progress of trials, what was carried out, networks."""

import torch

from ice_ray import IceHyperparameters
from ice_ray.cache.actions import ActionRecord
from ice_ray.cache.storage import NetworkFiles
from ice_ray.engine.actions import Measure, Measured, Outcome
from ice_ray.engine.cost import Cost
from ice_ray.engine.snapshots import Snapshot
from ice_ray.files import write_json
from ice_ray.pipelines.records import PipelineState
from ice_ray.trials.action_cache import ActionCacheServer, Budget, action_log
from ice_ray.trials.proposals import read_winner
from ice_ray.trials.trial_store import TrialProgress, TrialStore


def network(name: str) -> Snapshot:
    return Snapshot(name, {"conv": (0, 2, 3)}, {"conv.weight": torch.arange(12.0).reshape(3, 2, 2)})


def record(name: str) -> ActionRecord:
    return ActionRecord(name, Measure(), Outcome(name, Measured(71.1, 500, True), Cost(0.1, 3e9)))


def test_a_trial_s_progress(bucket):
    store = TrialStore(bucket / "states" / "search")
    assert store.load(0) is None
    assert not store.drop_damaged(0)
    store.save(0, TrialProgress(PipelineState("a"), node="n", finished=True))
    assert store.load(0) == TrialProgress(PipelineState("a"), node="n", finished=True)
    (bucket / "states" / "search" / "trial-000.json").write_bytes(b'{"state": ')
    assert store.load(0) is None
    assert store.drop_damaged(0)
    assert not store.drop_damaged(0)


def test_networks(bucket):
    files = NetworkFiles(bucket / "networks")
    assert files.load("a") is None
    assert files.sizes() == {}
    files.save(network("a"))
    files.save(network("b"))
    found = files.load("a")
    assert torch.equal(found.tensors["conv.weight"], network("a").tensors["conv.weight"])
    assert files.sizes().keys() == {"a", "b"}
    (bucket / "networks" / "b.safetensors").write_bytes(b"cut")
    assert files.holds("b")
    assert files.load("b") is None
    files.remove("b")
    files.remove("c")
    assert not files.holds("b")
    files.clear()
    assert files.sizes() == {}


def test_a_server_that_is_made_anew_knows_what_was_told(bucket):
    folder, budget = bucket / "kept" / "search", Budget(1e6, 1e6)
    first = ActionCacheServer(folder, budget)
    for name in "abc":
        first.tell(record(name))
    second = ActionCacheServer(folder, budget)
    assert [second.ask(name, Measure(), "me") for name in "abc"] == [record(name) for name in "abc"]
    assert action_log(folder).load() == [record(name) for name in "abc"]


def test_a_winner_to_start_from(bucket):
    point = IceHyperparameters(1.0, 0.1, 1e-2, 1e-3, 0.1, 1.0)
    write_json(bucket / "earlier" / "best.json", {"hyperparameters": point.as_dict()})
    assert read_winner(bucket / "earlier" / "best.json", IceHyperparameters) == point
