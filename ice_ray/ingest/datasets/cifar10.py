"""CIFAR-10: 50,000 and 10,000 images of 32x32 in 10 classes."""

from __future__ import annotations

from ice_ray.ingest.datasets.base import Dataset
from ice_ray.ingest.datasets.cifar_binary import CifarVersion, open_cifar

CIFAR10 = CifarVersion(
    name="cifar10",
    title="CIFAR-10",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    folder="cifar-10-batches-bin",
    files={"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)},
    names_file="batches.meta.txt",
    classes=10,
    label_bytes=1,
    pickled=("cifar-10-batches-py", "data_batch_1"),
)


def open_cifar10(directory: str | None, image_size: int | None) -> Dataset:
    """CIFAR-10 from a folder with its binary version or parquet files; without one, downloaded once.

    Raises:
        DataError: the folder holds neither, or the download failed.
    """
    return open_cifar(CIFAR10, directory, image_size)
