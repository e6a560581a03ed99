"""Fashion-MNIST from idx files written by hand."""

import gzip

import numpy as np
import pytest
from conformance import read
from layouts import write_fashionmnist, write_idx

from ice_ray.errors import UserError
from ice_ray.ingest.datasets import open_dataset


@pytest.mark.parametrize(("below", "suffix"), [("", ".gz"), ("", ""), ("FashionMNIST/raw", "")])
def test_grey_images_come_back_in_three_equal_channels(tmp_path, below, suffix):
    images = write_fashionmnist(tmp_path / below, suffix)
    dataset = open_dataset(f"fashionmnist:{tmp_path}")
    assert dataset.labels["train"].tolist() == list(range(10))
    assert dataset.class_names[9] == "Ankle boot"
    (row,) = read(dataset, "test", [3])
    assert row.pixels.shape == (28, 28, 3)
    assert all(np.array_equal(row.pixels[..., channel], images["test"][3]) for channel in range(3))
    assert (dataset.pad, dataset.flip) == (0, False)


DAMAGES = {
    "missing": ("t10k-labels-idx1-ubyte", None, "is missing"),
    "cut short": ("train-images-idx3-ubyte", bytes([0, 0, 8, 3, 0, 0, 0, 9]), "is damaged or no idx file"),
    "empty": ("train-labels-idx1-ubyte", b"", "is damaged or no idx file"),
    "not packed": ("train-labels-idx1-ubyte.gz", b"plain", "is damaged or no idx file"),
    "packed, cut short": ("t10k-images-idx3-ubyte.gz", gzip.compress(bytes(999))[:15], "is damaged or no idx file"),
    "floats": ("train-images-idx3-ubyte", bytes([0, 0, 13, 1, 0, 0, 0, 1, 0, 0, 0, 0]), "is damaged or no idx file"),
}


@pytest.mark.parametrize(("name", "content", "said"), DAMAGES.values(), ids=DAMAGES)
def test_files_that_are_wrong_are_named(tmp_path, name, content, said):
    write_fashionmnist(tmp_path)
    (tmp_path / name.removesuffix(".gz")).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} {said}"):
        open_dataset(f"fashionmnist:{tmp_path}")


def test_as_many_images_as_labels(tmp_path):
    write_fashionmnist(tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(4, np.uint8))
    with pytest.raises(UserError, match="5 images for 4 labels"):
        open_dataset(f"fashionmnist:{tmp_path}")
    with pytest.raises(UserError, match="no such folder"):
        open_dataset("fashionmnist:/no/such/place")
