"""CIFAR-100: 50,000 and 10,000 images of 32x32 in 100 fine classes."""

from __future__ import annotations

from ice_ray.ingest.datasets.base import Dataset
from ice_ray.ingest.datasets.cifar_binary import CifarVersion, open_cifar

CIFAR100 = CifarVersion(
    name="cifar100",
    title="CIFAR-100",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
    folder="cifar-100-binary",
    files={"train": ("train.bin",), "test": ("test.bin",)},
    names_file="fine_label_names.txt",
    classes=100,
    label_bytes=2,  # the coarse label, then the fine one
    pickled=("cifar-100-python", "meta"),
)


def open_cifar100(directory: str | None, image_size: int | None) -> Dataset:
    """CIFAR-100 from a folder with its binary version or parquet files; without one, downloaded once.

    Raises:
        DataError: the folder holds neither, or the download failed.
    """
    return open_cifar(CIFAR100, directory, image_size)
