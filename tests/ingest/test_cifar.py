"""CIFAR-10 and CIFAR-100 from bytes written by hand in the published layout."""

import numpy as np
import pytest
from conformance import read
from layouts import write_cifar, write_parquet

from ice_ray.errors import UserError
from ice_ray.ingest.datasets import open_dataset
from ice_ray.ingest.datasets.cifar_binary import CifarBinary

TEN = {f"data_batch_{number}.bin": [number - 1] for number in range(1, 6)} | {"test_batch.bin": [5]}
HUNDRED = {"train.bin": [99, 3, 50], "test.bin": [42]}
NAMES = [f"class {label}" for label in range(100)]


def test_cifar10_s_rows_come_back_as_written(tmp_path):
    images = write_cifar(tmp_path, TEN, "batches.meta.txt", NAMES[:10])
    dataset = open_dataset(f"cifar10:{tmp_path}")
    assert isinstance(dataset, CifarBinary)
    assert dataset.labels["train"].tolist() == [0, 1, 2, 3, 4]
    assert dataset.class_names == tuple(NAMES[:10])
    assert np.array_equal(read(dataset, "train", [2])[0].pixels, images[2])
    assert np.array_equal(read(dataset, "test", [0])[0].pixels, images[5])
    assert (dataset.pad, dataset.flip) == (4, True)


def test_cifar100_s_rows_have_their_fine_label(tmp_path):
    images = write_cifar(tmp_path / "cifar-100-binary", HUNDRED, "fine_label_names.txt", NAMES, coarse=b"\x07")
    dataset = open_dataset(f"cifar100:{tmp_path}")
    assert {split: labels.tolist() for split, labels in dataset.labels.items()} == {"train": [99, 3, 50], "test": [42]}
    assert dataset.class_names == tuple(NAMES)
    rows = read(dataset, "train", [0, 2])
    assert np.array_equal(rows[0].pixels, images[0])
    assert np.array_equal(rows[1].pixels, images[2])
    assert (dataset.pad, dataset.flip) == (4, True)


def test_cifar100_as_parquet(tmp_path):
    write_parquet(tmp_path / "cifar100" / "train-0.parquet", [0, 99], label="fine_label", image="img", structs=True)
    assert open_dataset(f"cifar100:{tmp_path}").classes == 100


def test_without_a_file_of_names_classes_are_numbers(tmp_path):
    write_cifar(tmp_path, HUNDRED, "fine_label_names.txt", NAMES, coarse=b"\x07")
    (tmp_path / "fine_label_names.txt").write_text("apple\nbaby\n")
    with pytest.raises(UserError, match="names 2 classes, not 100"):
        open_dataset(f"cifar100:{tmp_path}")
    (tmp_path / "fine_label_names.txt").unlink()
    assert open_dataset(f"cifar100:{tmp_path}").class_names == tuple(str(label) for label in range(100))


def test_files_that_are_cut_short_missing_or_of_another_version(tmp_path):
    write_cifar(tmp_path, TEN, "batches.meta.txt", NAMES[:10])
    (tmp_path / "data_batch_3.bin").write_bytes(b"short")
    with pytest.raises(UserError, match=r"data_batch_3.bin is cut short"):
        open_dataset(f"cifar10:{tmp_path}")
    (tmp_path / "data_batch_3.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"data_batch_3.bin is cut short"):
        open_dataset(f"cifar10:{tmp_path}")
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(UserError, match=r"data_batch_3.bin is missing"):
        open_dataset(f"cifar10:{tmp_path}")


def test_a_label_outside_the_classes(tmp_path):
    write_cifar(tmp_path, HUNDRED | {"test.bin": [100]}, "fine_label_names.txt", NAMES, coarse=b"\x07")
    with pytest.raises(UserError, match=r"label 100 \(split test, row 0\)"):
        open_dataset(f"cifar100:{tmp_path}")


@pytest.mark.parametrize(("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_the_pickled_versions_are_refused(tmp_path, name, folder):
    (tmp_path / folder).mkdir()
    with pytest.raises(UserError, match="pickles"):
        open_dataset(f"{name}:{tmp_path}")
    for file in ("data_batch_1", "meta"):
        (tmp_path / folder / file).write_bytes(b"\x80\x02.")
    with pytest.raises(UserError, match="pickles"):
        open_dataset(f"{name}:{tmp_path / folder}")
