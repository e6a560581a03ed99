"""Every registered dataset, from small files in its published layout, does what a dataset must."""

import pytest
from conformance import conforms, read
from layouts import (
    JUNK,
    encoded,
    pixels,
    write_cifar,
    write_fashionmnist,
    write_folders,
    write_parquet,
    write_tinyimagenet,
)

from ice_ray.ingest.datasets import DATASETS, open_dataset


def cifar10(root):
    files = {f"data_batch_{number}.bin": [number, 0] for number in range(1, 6)} | {"test_batch.bin": [9, 1]}
    write_cifar(root, files, "batches.meta.txt", [f"name {label}" for label in range(10)])
    return ()


def cifar100(root):
    names = [f"name {label}" for label in range(100)]
    write_cifar(root, {"train.bin": [99, 0, 50], "test.bin": [7]}, "fine_label_names.txt", names, b"\x05")
    return ()


def fashionmnist(root):
    write_fashionmnist(root, ".gz")
    return ()


def tinyimagenet(root):
    write_tinyimagenet(root)
    (root / "train" / "n01443537" / "images" / "n01443537_1.JPEG").write_bytes(JUNK)
    return (1,)


def folders(root):
    write_folders(root)
    (root / "train" / "n02123045" / "ILSVRC2012_0.JPEG").write_bytes(JUNK)
    return (2,)


def parquet(root):
    whole = [encoded(image) for image in pixels(4, 5, 7)]
    write_parquet(root / "data" / "train-0.parquet", [0, 1, 0], [whole[0], JUNK, whole[1]])
    write_parquet(root / "data" / "train-1.parquet", [1, 1], [whole[2][:40], whole[3]])
    write_parquet(root / "data" / "test.parquet", [0, 1], whole[:2])
    return (1, 3)


# What writes each one's files, and says which training rows it has damaged.
WRITERS = {
    "digits": None,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "fashionmnist": fashionmnist,
    "tinyimagenet": tinyimagenet,
    "imagenet": folders,
    "imagefolder": folders,
    "parquet": parquet,
}


def test_every_registered_dataset_is_here():
    assert set(WRITERS) == set(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_a_registered_dataset_conforms(name, tmp_path):
    write = WRITERS[name]
    if write is None:
        conforms(open_dataset(name))
    else:
        damaged = write(tmp_path)
        conforms(open_dataset(f"{name}:{tmp_path}"), damaged)


@pytest.mark.parametrize("name", ["tinyimagenet", "imagenet", "imagefolder", "parquet"])
def test_those_that_fit_images_to_a_size_give_that_size(name, tmp_path):
    damaged = WRITERS[name](tmp_path)
    dataset = open_dataset(f"{name}:{tmp_path}", image_size=20)
    conforms(dataset, damaged)
    assert read(dataset, "train", [0])[0].pixels.shape == (20, 20, 3)
