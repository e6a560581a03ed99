"""One Ray, one workload and one preparation for all searches of these tests."""

import pytest
from ice_runs import hyperparameters
from searching import SETTINGS, SHAPE

from ice_ray.cluster.session import ray_session
from ice_ray.cluster.workload import DenseModel, Workload
from ice_ray.data.images import Preprocessing
from ice_ray.ingest.datasets import open_dataset
from ice_ray.ingest.load import load
from ice_ray.ingest.roles import assign_roles, subsample
from ice_ray.models.registry import ModelSpec
from ice_ray.trials.prepare import prepare_search


@pytest.fixture(scope="package")
def cluster():
    with ray_session():
        yield


@pytest.fixture(scope="package")
def workload(cluster, trained) -> Workload:
    dataset = open_dataset("digits")
    roles = assign_roles(dataset, "holdout", 0)
    train = load(dataset, subsample(dataset, roles.train, 400, 0, "t"), "stop", SHAPE)
    validation = load(dataset, roles.validation, "stop", SHAPE)
    model = DenseModel.share(ModelSpec("cifar-resnet8", 10), trained.state_dict())
    return Workload(model, train, validation, Preprocessing(pad=1), SETTINGS, "fp32")


@pytest.fixture(scope="package")
def prepared(workload):
    return prepare_search(workload, hyperparameters(), True, 1.0, 0.0, 1e9)
