"""Parquet: rows, splits, class names, and every way in which files can be wrong."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conformance import read
from layouts import encoded, pixels, write_parquet

from ice_ray.errors import UserError
from ice_ray.ingest.datasets import open_dataset

PIXELS = pixels(12, 5, 7)
FEATURES = {"names": ["ant", "bee", "cow", "dog"], "_type": "ClassLabel"}


@pytest.mark.parametrize("structs", [False, True])
@pytest.mark.parametrize("label", ["label", "labels", "fine_label"])
@pytest.mark.parametrize("image", ["image", "img"])
def test_splits_rows_and_classes(tmp_path, structs, label, image):
    columns = {"label": label, "image": image, "structs": structs}
    write_parquet(tmp_path / "train-0.parquet", [0, 1, 2], **columns)
    write_parquet(tmp_path / "train-1.parquet", [2, 1], **columns)
    write_parquet(tmp_path / "validation.parquet", [1], **columns)
    dataset = open_dataset(f"parquet:{tmp_path}")
    assert dataset.class_names == ("0", "1", "2")
    assert {split: labels.tolist() for split, labels in dataset.labels.items()} == {
        "train": [0, 1, 2, 2, 1],
        "val": [1],
    }
    rows = read(dataset, "train", [1, 2, 4])
    assert [np.array_equal(row.pixels, PIXELS[index]) for row, index in zip(rows, [1, 2, 1], strict=True)] == [True] * 3
    assert rows[2].name.endswith("train-1.parquet row 1")


@pytest.mark.parametrize(
    "names",
    [
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),  # as the Hub stores them
        ("default/train/0000.parquet", "default/test/0000.parquet"),  # as it converts them
        ("fine/train.parquet", "fine/test.parquet"),
        ("test-bed/train.parquet", "test-bed/test.parquet"),  # the nearest name counts
    ],
)
def test_splits_in_nested_folders(tmp_path, names):
    for name, labels in zip(names, ([0, 1], [1]), strict=True):
        write_parquet(tmp_path / name, labels)
    dataset = open_dataset(f"parquet:{tmp_path}")
    assert {split: labels.tolist() for split, labels in dataset.labels.items()} == {"train": [0, 1], "test": [1]}


def test_files_of_a_folder_that_name_no_split_are_for_training(tmp_path):
    write_parquet(tmp_path / "0000.parquet", [0, 1])
    write_parquet(tmp_path / "0001.parquet", [1])
    dataset = open_dataset(f"parquet:{tmp_path}")
    assert {split: labels.tolist() for split, labels in dataset.labels.items()} == {"train": [0, 1, 1]}


def test_rows_of_many_row_groups_are_those_asked_for(tmp_path):
    images = pixels(10, 5, 7)
    write_parquet(tmp_path / "train.parquet", [0, 1] * 5, row_group_size=3)
    assert pq.read_metadata(tmp_path / "train.parquet").num_row_groups == 4
    rows = read(open_dataset(f"parquet:{tmp_path}"), "train", [1, 2, 3, 9])
    assert [row.name.split()[-1] for row in rows] == ["1", "2", "3", "9"]
    assert all(np.array_equal(row.pixels, images[index]) for row, index in zip(rows, [1, 2, 3, 9], strict=True))


@pytest.mark.parametrize("label", ["label", "fine_label"])
def test_class_names_of_hugging_face(tmp_path, label):
    metadata = {"huggingface": json.dumps({"info": {"features": {label: FEATURES}}})}
    write_parquet(tmp_path / "train.parquet", [0, 1], label=label, metadata=metadata)
    assert open_dataset(f"parquet:{tmp_path}").class_names == ("ant", "bee", "cow", "dog")


def test_a_corrupt_image_is_a_row_with_its_name(tmp_path):
    whole = encoded(PIXELS[0])
    images = [whole, b"junk", whole[: len(whole) // 2], b"", None]
    write_parquet(tmp_path / "train.parquet", [0, 1, 0, 1, 0], images)
    rows = read(open_dataset(f"parquet:{tmp_path}"), "train", range(5))
    assert [row.pixels is None for row in rows] == [False, True, True, True, True]
    assert "train.parquet row 1: corrupt image" in rows[1].error
    assert "train.parquet row 4: no image bytes" in rows[4].error


@pytest.mark.parametrize("seed", range(20))
def test_whatever_bytes_are_damaged_no_exception_comes_out(tmp_path, seed):
    """Some bytes of a PNG and of a JPEG replaced at random: an image or an error, and the row beside it as it was."""
    random = np.random.default_rng(seed)
    images = [bytearray(encoded(pixels(1)[0], kind)) for kind in ("PNG", "JPEG")]
    for image in images:
        for place in random.integers(0, len(image), 10):
            image[place] = random.integers(256)
    write_parquet(tmp_path / "train.parquet", [0, 1, 0], [*map(bytes, images), encoded(PIXELS[0])])
    rows = read(open_dataset(f"parquet:{tmp_path}"), "train", range(3))
    assert all((row.pixels is None) == bool(row.error) for row in rows)
    assert np.array_equal(rows[2].pixels, PIXELS[0])


def test_a_damaged_page_is_an_error_of_its_rows_alone(tmp_path):
    file = tmp_path / "train.parquet"
    write_parquet(file, [0, 1, 0, 1], row_group_size=2, compression="snappy")
    dataset = open_dataset(f"parquet:{tmp_path}")
    page = pq.read_metadata(file).row_group(0).column(0)
    content = bytearray(file.read_bytes())
    start = page.dictionary_page_offset or page.data_page_offset
    content[start : start + page.total_compressed_size] = b"\xff" * page.total_compressed_size
    file.write_bytes(content)
    rows = read(dataset, "train", range(4))
    assert [row.pixels is None for row in rows] == [True, True, False, False]
    assert "train.parquet row 1: cannot be read" in rows[1].error


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([-1, 0], "label -1"),
        ([0, 0], "has 1 class"),
        ([], "no training images"),
        ([0, 3_000_000_000], "label 3000000000 is no class"),
        ([0, None], "1 rows have no label"),
    ],
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


def test_files_that_are_none_or_lack_columns(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        open_dataset(f"parquet:{tmp_path}/nowhere")
    with pytest.raises(UserError, match=r"no .parquet file"):
        open_dataset(f"parquet:{tmp_path}")
    write_parquet(tmp_path / "test.parquet", [0, 1])
    with pytest.raises(UserError, match=r"no file named train"):
        open_dataset(f"parquet:{tmp_path}")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        open_dataset(f"parquet:{tmp_path}")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"image": [b"x"], "class": [1]}, "no integer column named label"),
        ({"image": [b"x"], "label": ["cat"]}, "no integer column named label"),
        ({"picture": [b"x"], "label": [1]}, "no column named image"),
        ({"image": [[1, 2]], "label": [1]}, "column image is list"),
        ({"image": [{"path": "a.png"}], "label": [1]}, "column image is struct"),
    ],
)
def test_columns_of_another_kind(tmp_path, columns, said):
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    with pytest.raises(UserError, match=said):
        open_dataset(f"parquet:{tmp_path}")


def test_real_cifar10(shared):
    dataset = open_dataset(f"cifar10:{shared / 'datasets' / 'cifar10-jpeg'}")
    assert dataset.class_names == tuple("0123456789")
    assert np.bincount(dataset.labels["train"]).tolist() == [5000] * 10
    assert np.bincount(dataset.labels["test"]).tolist() == [1000] * 10
    assert all(row.pixels.shape == (32, 32, 3) for row in read(dataset, "train", [0, 12_500, 49_999]))
