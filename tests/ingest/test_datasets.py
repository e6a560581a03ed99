"""Datasets: real CIFAR-10 and digits, and every way in which files can be wrong."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ice_ray.errors import UserError
from ice_ray.ingest.datasets import open_dataset
from ice_ray.ingest.datasets.cifar10 import Cifar10Binary

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 5, 7, 3), dtype=np.uint8)


def encoded(pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path, labels, images=None, column="label", structs=False, metadata=None):
    images = [encoded(pixels) for pixels in PIXELS[: len(labels)]] if images is None else images
    if structs:
        images = [{"bytes": image, "path": None} for image in images]
    table = pa.table({"image": images, column: labels})
    pq.write_table(table.replace_schema_metadata(metadata or {}), path)


def read(dataset, split, rows):
    return list(dataset.read(split, np.array(rows)))


@pytest.mark.parametrize("structs", [False, True])
@pytest.mark.parametrize("column", ["label", "labels"])
def test_parquet_splits_rows_and_classes(tmp_path, structs, column):
    write_parquet(tmp_path / "train-0.parquet", [0, 1, 2], column=column, structs=structs)
    write_parquet(tmp_path / "train-1.parquet", [2, 1], column=column, structs=structs)
    write_parquet(tmp_path / "validation.parquet", [1], column=column, structs=structs)
    dataset = open_dataset(f"parquet:{tmp_path}")
    assert dataset.classes == 3
    assert {split: labels.tolist() for split, labels in dataset.labels.items()} == {
        "train": [0, 1, 2, 2, 1],
        "val": [1],
    }
    rows = read(dataset, "train", [1, 2, 4])
    assert [np.array_equal(row.pixels, PIXELS[index]) for row, index in zip(rows, [1, 2, 1], strict=True)] == [True] * 3
    assert rows[2].name.endswith("train-1.parquet row 1")


def test_class_names_of_hugging_face_are_counted(tmp_path):
    info = {"info": {"features": {"label": {"names": ["a", "b", "c", "d"], "_type": "ClassLabel"}}}}
    write_parquet(tmp_path / "train.parquet", [0, 1], metadata={"huggingface": json.dumps(info)})
    assert open_dataset(f"parquet:{tmp_path}").classes == 4


def test_a_corrupt_image_is_a_row_with_its_name(tmp_path):
    whole = encoded(PIXELS[0])
    write_parquet(tmp_path / "train.parquet", [0, 1, 0, 1], images=[whole, b"junk", whole[: len(whole) // 2], b""])
    rows = read(open_dataset(f"parquet:{tmp_path}"), "train", [0, 1, 2, 3])
    assert [row.pixels is None for row in rows] == [False, True, True, True]
    assert "train.parquet row 1: corrupt image" in rows[1].error


@pytest.mark.parametrize(
    ("labels", "said"),
    [([-1, 0], "label -1"), ([0, 0], "has 1 class"), ([], "no training images")],
)
def test_labels_that_cannot_be(tmp_path, labels, said):
    write_parquet(tmp_path / "train.parquet", pa.array(labels, pa.int64()))
    with pytest.raises(UserError, match=said):
        open_dataset(f"parquet:{tmp_path}")


def test_a_test_label_that_training_does_not_know(tmp_path):
    write_parquet(tmp_path / "train.parquet", [0, 1])
    write_parquet(tmp_path / "test.parquet", [0, 5])
    with pytest.raises(UserError, match=r"label 5 \(split test, row 1\) is outside the classes 0 to 1"):
        open_dataset(f"parquet:{tmp_path}")


def test_parquet_files_that_are_none_or_lack_columns(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        open_dataset(f"parquet:{tmp_path}/nowhere")
    with pytest.raises(UserError, match=r"no .parquet file"):
        open_dataset(f"parquet:{tmp_path}")
    write_parquet(tmp_path / "rest.parquet", [0, 1])
    with pytest.raises(UserError, match=r"no file named train"):
        open_dataset(f"parquet:{tmp_path}")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        open_dataset(f"parquet:{tmp_path}")
    pq.write_table(pa.table({"image": [b"x"], "class": [1]}), tmp_path / "train.parquet")
    with pytest.raises(UserError, match="no integer column named label"):
        open_dataset(f"parquet:{tmp_path}")
    pq.write_table(pa.table({"picture": [b"x"], "label": [1]}), tmp_path / "train.parquet")
    with pytest.raises(UserError, match="no column named image"):
        open_dataset(f"parquet:{tmp_path}")


def test_image_folders(tmp_path):
    for split, names in {"train": ["cat", "dog"], "val": ["cat"]}.items():
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(PIXELS[0]).save(tmp_path / split / name / "1.png")
    dataset = open_dataset(f"imagefolder:{tmp_path}", image_size=6)
    assert (dataset.classes, dataset.labels["train"].tolist(), dataset.labels["val"].tolist()) == (2, [0, 1], [0])
    assert read(dataset, "train", [1])[0].pixels.shape == (6, 6, 3)
    (tmp_path / "val" / "bird").mkdir()
    with pytest.raises(UserError, match="class folder 'bird'"):
        open_dataset(f"imagefolder:{tmp_path}")


def test_an_empty_class_of_images_is_no_fault_but_an_empty_split_is(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match="no training images"):
        open_dataset(f"imagefolder:{tmp_path}")


def test_a_set_of_one_size_does_not_take_another():
    with pytest.raises(UserError, match="leave --image-size out"):
        open_dataset("digits", image_size=16)


def test_digits_are_split_once_and_for_all():
    dataset = open_dataset("digits")
    assert {split: len(labels) for split, labels in dataset.labels.items()} == {"train": 1258, "test": 539}
    assert set(dataset.labels["test"]) == set(range(10))
    assert read(dataset, "test", [3])[0].pixels.shape == (8, 8, 3)


def test_cifar10_binary_version(tmp_path):
    """Rows written in the published layout, a byte of label and three colour planes, come back as they were."""
    pixels = np.random.default_rng(1).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    rows = np.concatenate([np.arange(6, dtype=np.uint8)[:, None], pixels.transpose(0, 3, 1, 2).reshape(6, -1)], axis=1)
    for number in range(5):
        rows[number].tofile(tmp_path / f"data_batch_{number + 1}.bin")
    rows[5].tofile(tmp_path / "test_batch.bin")
    dataset = open_dataset(f"cifar10:{tmp_path}")
    assert isinstance(dataset, Cifar10Binary)
    assert dataset.labels["train"].tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(read(dataset, "train", [2])[0].pixels, pixels[2])
    (tmp_path / "data_batch_3.bin").write_bytes(b"short")
    with pytest.raises(UserError, match="cut short"):
        open_dataset(f"cifar10:{tmp_path}")


def test_the_pickled_version_of_cifar10_is_refused(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(UserError, match="pickles"):
        open_dataset(f"cifar10:{tmp_path}")


def test_real_cifar10(shared):
    dataset = open_dataset(f"cifar10:{shared / 'datasets' / 'cifar10-jpeg'}")
    assert dataset.classes == 10
    assert np.bincount(dataset.labels["train"]).tolist() == [5000] * 10
    assert np.bincount(dataset.labels["test"]).tolist() == [1000] * 10
    assert all(row.pixels.shape == (32, 32, 3) for row in read(dataset, "train", [0, 12_500, 49_999]))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("digts", "nearest: digits"),
        ("parquet", "needs a path"),
        ("imagefolder:", "needs a path"),
        ("digits:x", "takes no argument"),
        ("parquet:/no/such/place", "no such folder"),
    ],
)
def test_names_that_are_wrong(name, said):
    with pytest.raises(UserError, match=said):
        open_dataset(name)
