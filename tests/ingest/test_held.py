"""Images given as objects, as a dataset of the jobs' kind: any channels, bytes or floats, held or read."""

import pickle
import sys

import numpy as np
import pytest
import ray
import torch
from conformance import conforms
from torch.utils.data import DataLoader, Dataset

from ice_ray.api.data import given_images
from ice_ray.cluster.session import ray_session
from ice_ray.data import reading
from ice_ray.data.images import ImageSet
from ice_ray.data.reading import ReadImages
from ice_ray.errors import DataError, UserError
from ice_ray.ingest.datasets.held import HeldDataset
from ice_ray.ingest.load import LoadedImages, StreamedImages, load
from ice_ray.ingest.roles import Rows, assign_roles


class Drawn(Dataset):
    """Real numbers, (2, 5, 6) each."""

    def __init__(self, count: int, noise: float = 0.0, spoilt: int = -1) -> None:
        self.count, self.noise, self.spoilt = count, noise, spoilt

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int):
        image = torch.arange(60.0).view(2, 5, 6) + number + self.noise * torch.rand(1)
        return image / 100 / (0 if number == self.spoilt else 1), number % 3


def held(dtype=torch.float32, channels=2) -> HeldDataset:
    def some(count: int) -> ImageSet:
        pixels = torch.arange(count * 30 * channels).remainder(251).view(count, 5, 6, channels).to(dtype)
        return ImageSet(pixels, torch.arange(count) % 3)

    return HeldDataset({"train": some(21), "val": some(9), "test": some(6)})


@pytest.fixture
def read(monkeypatch) -> HeldDataset:
    """Of images that do not fit into memory."""
    monkeypatch.setattr(reading, "free_memory", lambda: 100)
    loaders = [DataLoader(Drawn(count), 4, num_workers=1, multiprocessing_context="fork") for count in (21, 6)]
    train, test = (given_images(loader, name) for loader, name in zip(loaders, ("train", "test"), strict=True))
    assert isinstance(train, ReadImages)
    return HeldDataset({"train": train, "test": test}, class_names=["ant", "bee", "fly"])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_held_images_conform(dtype, channels):
    dataset = held(dtype, channels)
    conforms(dataset, channels=channels)
    roles = assign_roles(dataset, "holdout", 0)
    assert [rows.split for rows in (roles.train, roles.validation, roles.test)] == ["train", "val", "test"]


def test_images_that_are_read_conform(read):
    conforms(read, channels=2)
    assert read.class_names == ("ant", "bee", "fly") and read.dtype == np.float32
    assert read.labels["train"].tolist() == [number % 3 for number in range(21)]


def test_splits_that_do_not_go_together_are_refused():
    one, other = (ImageSet(torch.zeros(4, 5, 5, channels), torch.arange(4)) for channels in (1, 3))
    with pytest.raises(UserError, match=r"val: images are torch.float32 \(3, 5, 5\) and those of train"):
        HeldDataset({"train": one, "val": other})
    with pytest.raises(UserError, match="data of splits val: give train"):
        HeldDataset({"val": one})
    with pytest.raises(UserError, match="outside the classes 0 to 1"):
        HeldDataset({"train": one}, class_names=["ant", "bee"])


@pytest.mark.slow
def test_held_images_go_to_one_ray_after_another():
    """As where `Study.replay` starts a Ray of its own after that of the search has ended."""
    dataset = held()
    for _ in range(2):
        assert not ray.is_initialized()
        with ray_session():
            count = ray.get(ray.remote(num_cpus=0)(lambda own: len(own.at_hand("train"))).remote(dataset))
            assert count == 21


@pytest.fixture(scope="module")
def ray_running():
    """Whose processes are sent the classes of this file, as they are those of a notebook."""
    here = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(here)
    with ray_session():
        yield
    ray.cloudpickle.unregister_pickle_by_value(here)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_other_processes_see_the_same_bits(ray_running, dtype):
    """In memory, decoded by tasks, and streamed by them."""
    dataset, rows = held(dtype, 1), Rows("train", np.arange(3, 20))
    expected = dataset.at_hand("train").take(torch.arange(3, 20))
    for placement, kind in (("memory", LoadedImages), ("auto", LoadedImages), ("stream", StreamedImages)):
        loaded = load(dataset, rows, "stop", (1, 5, 6), placement)
        images = loaded.get()
        assert isinstance(loaded, kind) and (loaded.count, images.dtype) == (17, dtype)
        found = images.take(torch.arange(17))
        assert torch.equal(found.images, expected.images) and torch.equal(found.labels, expected.labels)


@pytest.mark.slow
def test_what_is_sent_often_lies_in_the_store_once(ray_running):
    dataset = held()
    sent = [pickle.dumps(dataset) for _ in range(2)]
    assert max(map(len, sent)) < dataset.at_hand("train").images.nbytes
    assert sent[0] == sent[1]
    conforms(dataset, channels=2)


@pytest.mark.slow
def test_what_does_not_fit_is_read_by_every_process(ray_running, read):
    rows = Rows("train", np.arange(1, 21))
    whole = read._splits["train"].take(torch.arange(1, 21))
    for placement in ("memory", "stream"):
        found = load(read, rows, "stop", (2, 5, 6), placement).get().take(torch.arange(20))
        assert torch.equal(found.images, whole.images) and torch.equal(found.labels, whole.labels)


@pytest.mark.slow
def test_augmented_images_are_read_anew_for_every_pass(ray_running):
    with pytest.warns(UserWarning, match="items differ"):
        train = given_images(Drawn(21, noise=1.0), "train")
    dataset = HeldDataset({"train": train, "val": held().at_hand("val")})
    loaded = load(dataset, Rows("train", np.arange(21)), "stop", (2, 5, 6))
    assert isinstance(loaded, StreamedImages)
    passes = [loaded.get().take(order) for order in (torch.arange(21), torch.arange(20, -1, -1))]
    assert not torch.equal(passes[0].images, passes[1].images.flip(0))
    assert isinstance(load(dataset, Rows("val", np.arange(9)), "stop", (2, 5, 6)), LoadedImages)


@pytest.mark.slow
def test_an_item_that_cannot_be_read_is_named(ray_running, monkeypatch):
    monkeypatch.setattr(reading, "free_memory", lambda: 100)
    train = given_images(Drawn(200, spoilt=3), "train")
    train._reader.dataset.spoilt = -1  # so that labels can be read
    dataset = HeldDataset({"train": train, "val": held().at_hand("val")})
    train._reader.dataset.spoilt = 3
    with pytest.raises(DataError, match=r"train, image 3: train: image 3 holds NaN or infinity; mend or remove it"):
        load(dataset, Rows("train", np.arange(20)), "stop", (2, 5, 6), "stream")
    assert load(dataset, Rows("train", np.arange(20)), "skip", (2, 5, 6), "stream").count == 19
