"""The options of the fault suite, the cluster and the undisturbed run that all others are compared with."""

import pytest
from ground import Ground
from material import Material
from suffering import Undisturbed


def pytest_addoption(parser):
    parser.addoption("--faults", type=int, default=8, help="how many faults the fault suite inflicts")
    parser.addoption("--fault-seed", type=int, default=0, help="which, and when")


@pytest.fixture(scope="session")
def material(tmp_path_factory, shared) -> Material:
    return Material.make(tmp_path_factory.mktemp("faults") / "material", shared)


@pytest.fixture(scope="module")
def ground():
    with Ground.running() as ground:
        yield ground


@pytest.fixture(scope="module")
def undisturbed(ground, material, tmp_path_factory) -> Undisturbed:
    return Undisturbed.run(ground, material, tmp_path_factory.mktemp("undisturbed"))
