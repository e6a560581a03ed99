"""Shared fixtures: real digits, a small trained network, the folder of real data and weights where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# OpenMP reads it when torch is loaded: beside Ray's processes, threads that spin take the cores from those that work.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np
import pytest
import torch
from object_storage import new_server
from playwright.sync_api import Browser, sync_playwright
from torch import nn

from ice_ray.address import Address, storage_path
from ice_ray.data.images import ImageSet, Preprocessing, PruningData
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.ingest.datasets.digits import Digits
from ice_ray.models.registry import ModelSpec
from ice_ray.training.config import FineTuneConfig
from ice_ray.training.fine_tune import Recipe, fine_tune

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Every job has a Ray of its own, unless it is told otherwise: never a cluster that another test, or a user, has here.
os.environ["RAY_ADDRESS"] = "local"
ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("ICE_RAY_SHARED", ROOT.parent / "shared"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", metavar="K/N", help="of the files that have tests to run, every Nth from number K on")


@pytest.hookimpl(trylast=True)  # after the marks have chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (asked := config.getoption("--part")) is None:
        return
    part, parts = map(int, asked.split("/"))
    own = set(sorted({item.path for item in items})[part::parts])
    config.hook.pytest_deselected(items=[item for item in items if item.path not in own])
    items[:] = [item for item in items if item.path in own]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Bits depend on the number of threads, so every test has the same; networks this small gain nothing from two."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with CIFAR-10 and trained weights."""
    if not (SHARED / "datasets" / "cifar10-jpeg").is_dir():
        pytest.skip(
            f"needs real CIFAR-10 and weights, which are not in the repository: no folder {SHARED.name}/ beside it"
        )
    return SHARED


def digits(split: str, count: int) -> ImageSet:
    """The first `count` images of the split."""
    dataset = Digits()
    rows = np.arange(count)
    pixels = np.stack([row.pixels for row in dataset.read(split, rows) if row.pixels is not None])
    return ImageSet.from_numpy(pixels, dataset.labels[split][rows])


@pytest.fixture(scope="session")
def data() -> PruningData:
    """600 digits to train on, 200 to decide on."""
    return PruningData(digits("train", 600), digits("test", 200), Preprocessing(pad=1))


@pytest.fixture(scope="session")
def trained(data: PruningData) -> nn.Module:
    """A ResNet-8 that knows digits."""
    torch.set_num_threads(1)
    model = ModelSpec("cifar-resnet8", 10).build()
    recipe = Recipe(batch_size=64, options=FineTuneConfig(distil=False))
    fine_tune(
        model, data.train, data.preprocessing, recipe, lambda done: 0.05 if done < 2 / 3 else 0.01, 12, (0, "dense")
    )
    return model.eval()


@pytest.fixture(scope="session")
def network(trained: nn.Module, data: PruningData) -> DenseNetwork:
    """The same, traced."""
    return DenseNetwork(trained, data.train.image_shape)


@pytest.fixture
def executor(network: DenseNetwork, data: PruningData) -> TorchExecutor:
    """A fresh executor on the CPU in float32."""
    return TorchExecutor(network, data, Recipe(batch_size=64), 0, torch.device("cpu"))


@pytest.fixture(scope="session")
def bucket() -> Iterator[Address]:
    """A bucket on a server that speaks S3, for this process and those that it starts."""
    server = new_server()
    with server.running("bucket"), pytest.MonkeyPatch.context() as environment:
        for name, value in server.variables.items():
            environment.setenv(name, value)
        found = storage_path("s3://bucket")
        assert isinstance(found, Address)
        yield found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, without a window."""
    found = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("needs Chromium, which is not installed: on Debian `apt-get install chromium`")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found)
        yield chromium
        chromium.close()
