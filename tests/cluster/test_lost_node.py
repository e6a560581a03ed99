"""A node is lost in the middle of a search: what it was at is done elsewhere, and the search ends as it would have."""

import itertools
import sys
import threading
import time

import numpy as np
import pytest
import ray
import torch
from ray import tune
from ray.cluster_utils import Cluster
from searching import SETTINGS, SHAPE, facts

from ice_ray.cache.actions import key_of
from ice_ray.cluster.workload import DenseModel, Workload
from ice_ray.data.images import Preprocessing
from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.ingest import decoding
from ice_ray.ingest.datasets import open_dataset
from ice_ray.ingest.datasets.digits import Digits
from ice_ray.ingest.load import load
from ice_ray.ingest.roles import Rows, assign_roles, subsample
from ice_ray.models.registry import ModelSpec
from ice_ray.trials.action_cache import action_log
from ice_ray.trials.config import SearchConfig
from ice_ray.trials.prepare import prepare_search
from ice_ray.trials.proposals import Proposals
from ice_ray.trials.run import STATES, run_search

pytestmark = pytest.mark.slow
GRID = tuple(
    IceHyperparameters(0.0, 0.3, rate, reduction, 0.15, 50)
    for rate, reduction in itertools.product((0.01, 0.02, 0.05), (2e-3, 8e-3))
)


@pytest.fixture(scope="module")
def cluster():
    """A head that trials have no place on, and two nodes with room for one trial each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address)
    cluster.wait_for_nodes()
    yield cluster, nodes
    ray.shutdown()
    cluster.shutdown()


class Loss(tune.Callback):
    """Takes away the node of the first trial that has reported a step which is not its last."""

    def __init__(self, cluster, nodes) -> None:
        self._cluster, self._nodes = cluster, {node.node_id: node for node in nodes}
        self.lost = ""

    def on_trial_result(self, iteration, trials, trial, result, **info):
        if self.lost or result["done"] or "step" not in result:
            return
        actor = trial.temporary_state.ray_actor
        self.lost = ray.get(actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))
        self._cluster.remove_node(self._nodes[self.lost], allow_graceful=False)

    def __getstate__(self):
        return {}


class SlowDigits(Digits):
    """As from a slow disk."""

    def read(self, split, rows):
        time.sleep(0.5)
        yield from super().read(split, rows)


@pytest.mark.parametrize("graceful", [True, False])
def test_its_images_are_decoded_elsewhere(cluster, monkeypatch, graceful):
    """As it leaves in good order, or dies."""
    cluster, _ = cluster
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(decoding, "_ROWS_PER_TASK", 30)
    leaving = cluster.add_node(num_cpus=2)
    timer = threading.Timer(6, lambda: cluster.remove_node(leaving, allow_graceful=graceful))
    timer.start()
    dataset, rows = SlowDigits(), Rows("train", np.arange(1200))
    own = load(dataset, rows, "stop", SHAPE).get()
    timer.join()
    whole = load(Digits(), rows, "stop", SHAPE).get()
    assert torch.equal(own.images, whole.images) and torch.equal(own.labels, whole.labels)


def search(workload, prepared, folder, callbacks=()):
    config = SearchConfig(clock="work", max_failures=5)
    return run_search(Proposals(GRID), workload, prepared, config, 0.0, folder, list(callbacks))


def test_its_work_is_done_elsewhere(cluster, trained, tmp_path):
    cluster, nodes = cluster
    dataset = open_dataset("digits")
    roles = assign_roles(dataset, "holdout", 0)
    train = load(dataset, subsample(dataset, roles.train, 400, 0, "t"), "stop", SHAPE)
    validation = load(dataset, roles.validation, "stop", SHAPE)
    model = DenseModel.share(ModelSpec("cifar-resnet8", 10), trained.state_dict())
    workload = Workload(model, train, validation, Preprocessing(pad=1), SETTINGS, "fp32")
    prepared = prepare_search(workload, GRID[0], True, 1.0, 0.0, 1e9)
    loss = Loss(cluster, nodes)
    results = search(workload, prepared, tmp_path / "lost", [loss])
    assert loss.lost
    assert not any(result.failure for result in results)
    action_records = action_log(tmp_path / "lost" / STATES).load()
    assert len({key_of(action_record.snapshot, action_record.action) for action_record in action_records}) == len(
        action_records
    )
    undisturbed = search(workload, prepared, tmp_path / "whole")
    assert [facts(result.records) for result in results] == [facts(result.records) for result in undisturbed]
