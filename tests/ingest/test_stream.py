"""Streamed images: those of memory, in the order asked for; shuffled so that files are read in runs."""

import importlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import ice_ray.ingest.load as stream
from ice_ray.cluster.session import ray_session
from ice_ray.data.placement import HostImages
from ice_ray.errors import DataError, UserError
from ice_ray.ingest.datasets import open_dataset
from ice_ray.ingest.load import StreamedImages, load
from ice_ray.ingest.roles import Rows
from ice_ray.randomness import generator

pytestmark = pytest.mark.slow
COUNT, SIZE, GROUP = 90, 12, 10


@pytest.fixture(scope="module", autouse=True)
def ray_running():
    with ray_session():
        yield


def png(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder, images):
    table = pa.table({"image": images, "label": [number % 3 for number in range(len(images))]})
    pq.write_table(table, folder / "train-0.parquet", row_group_size=GROUP)
    pq.write_table(table.slice(0, 9), folder / "test-0.parquet", row_group_size=GROUP)
    return open_dataset(f"parquet:{folder}")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data"), [png(number) for number in range(COUNT)])


def both(dataset, rows, errors="stop"):
    shape = (3, SIZE, SIZE)
    in_memory, streamed = (load(dataset, rows, errors, shape, placement) for placement in ("memory", "stream"))
    assert isinstance(streamed, StreamedImages)
    return in_memory, streamed


@pytest.mark.parametrize("span", [7, 64])
def test_batches_are_those_of_memory(dataset, monkeypatch, span):
    """More spans than are in flight at once, so that what comes first must not be what is ready first."""
    monkeypatch.setattr(stream, "_MOST_ROWS_PER_TASK", span)
    in_memory, streamed = (found.get() for found in both(dataset, Rows("train", np.arange(5, COUNT))))
    order = torch.randperm(len(in_memory), generator=generator("order"))
    sizes = [32, 32, 0, len(order) - 64]
    for (pixels, labels), (expected, expected_labels) in zip(
        streamed.fetch(order, sizes), in_memory.fetch(order, sizes), strict=True
    ):
        assert torch.equal(pixels, expected) and torch.equal(labels, expected_labels)
    some = torch.tensor([3, 60, 61])
    assert torch.equal(streamed.take(some).images, in_memory.take(some).images)


def test_an_order_is_a_permutation_that_reads_a_row_group_in_few_tasks(dataset, monkeypatch):
    monkeypatch.setattr(stream, "_MOST_ROWS_PER_TASK", 2 * GROUP)
    _, streamed = both(dataset, Rows("train", np.arange(COUNT)))
    images = streamed.get()
    order = images.shuffled(generator("a"))
    assert sorted(order.tolist()) == list(range(COUNT))
    assert torch.equal(order, images.shuffled(generator("a")))
    assert not torch.equal(order, images.shuffled(generator("b")))
    spans = order.split(2 * GROUP)
    assert all(len({int(row) // GROUP for row in span}) <= 2 for span in spans)
    assert any((span.diff() < 0).any() for span in spans)


def test_rows_that_cannot_be_decoded_are_found_before_the_first_pass(tmp_path):
    dataset = write(tmp_path, [*(png(number) for number in range(20)), b"no image", png(21)])
    rows = Rows("train", np.arange(22))
    with pytest.raises(DataError, match="row 20: corrupt image"):
        load(dataset, rows, "stop", (3, SIZE, SIZE), "stream")
    in_memory, streamed = both(dataset, rows, "skip")
    assert streamed.count == in_memory.count == 21
    assert streamed.skipped == in_memory.skipped
    last = torch.tensor([20])
    assert torch.equal(streamed.get().take(last).images, in_memory.get().take(last).images)


def test_a_digest_follows_pixels_and_labels(dataset, tmp_path):
    rows = Rows("train", np.arange(COUNT))
    digests = [load(each, rows, "stop", (3, SIZE, SIZE), "stream").digest for each in (dataset, dataset)]
    other = write(tmp_path, [png(number + (number == 50)) for number in range(COUNT)])
    assert digests[0] == digests[1] != load(other, rows, "stop", (3, SIZE, SIZE), "stream").digest


def test_what_does_not_fit_into_the_object_store_is_streamed(dataset, monkeypatch):
    monkeypatch.setattr("ice_ray.ingest.load._SHARE_OF_STORE", 1e-9)
    assert isinstance(load(dataset, Rows("train", np.arange(30)), "stop", (3, SIZE, SIZE)), StreamedImages)


@pytest.mark.parametrize(
    "device",
    [
        torch.device("cpu"),
        pytest.param(
            torch.device("cuda"), marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
        ),
    ],
    ids=str,
)
def test_images_in_the_host_s_memory_come_in_the_same_batches(dataset, device):
    in_memory, _ = both(dataset, Rows("train", np.arange(COUNT)))
    images = in_memory.get()
    host = HostImages(images, device)
    order = images.shuffled(generator("order"))
    assert torch.equal(host.shuffled(generator("order")), order)
    for (pixels, labels), (expected, expected_labels) in zip(
        host.fetch(order, [40, 50]), images.fetch(order, [40, 50]), strict=True
    ):
        assert pixels.device.type == device.type
        assert torch.equal(pixels.cpu(), expected) and torch.equal(labels.cpu(), expected_labels)
    assert host.fingerprint() == images.fingerprint()


def test_a_dataset_that_nodes_do_not_know_is_one_line(tmp_path, monkeypatch):
    """Its module came to be after their processes had learnt where to look for modules."""
    (tmp_path / "only_here.py").write_text(
        "from ice_ray.ingest.datasets.digits import Digits as Base\n\n\nclass Digits(Base):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    dataset = importlib.import_module("only_here").Digits()
    with pytest.raises(UserError, match=r"data: a node does not know the dataset \(No module named 'only_here'\)"):
        load(dataset, Rows("train", np.arange(30)), "stop", (3, 8, 8))
