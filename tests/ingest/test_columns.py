"""Columns and classes of parquet files: which is read, what its numbers and names mean, in every file alike."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conformance import read
from layouts import encoded, pixels

from ice_ray.errors import UserError
from ice_ray.ingest.datasets import open_dataset
from ice_ray.ingest.datasets.labels import number_of
from ice_ray.ingest.roles import assign_roles

LARGE, SMALL = pixels(4, 8, 8), pixels(4, 3, 3)


def write(path, labels, names=None, image="image", label="label", **more) -> None:
    """A file of `LARGE`; `names` as Hugging Face's metadata gives them."""
    columns = {**more, image: [encoded(each) for each in LARGE[: len(labels)]], label: labels}
    features = {label: {"names": names, "_type": "ClassLabel"}} if names else {}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)


def opened(path):
    return open_dataset(f"parquet:{path}")


@pytest.mark.parametrize("thumbnail_first", [True, False])
@pytest.mark.parametrize("thumbnail", ["bytes", "text", "pixels"])
def test_the_image_column_that_is_checked_is_the_one_that_is_read(tmp_path, thumbnail_first, thumbnail):
    small = {"bytes": [encoded(each) for each in SMALL], "text": ["a.png"] * 4, "pixels": [[1, 2]] * 4}[thumbnail]
    large = [encoded(each) for each in LARGE]
    both = {"img": small, "image": large} if thumbnail_first else {"image": large, "img": small}
    pq.write_table(pa.table(both | {"label": [0, 1, 0, 1]}), tmp_path / "train.parquet")
    dataset = opened(tmp_path)
    assert np.array_equal(read(dataset, "train", [2])[0].pixels, LARGE[2])
    assert any("image" in note and "img" in note for note in dataset.notes) == (thumbnail == "bytes")


def test_an_image_column_that_holds_none_does_not_hide_one_that_does(tmp_path):
    columns = {"image": ["a.png"] * 4, "img": [encoded(each) for each in LARGE], "label": [0, 1, 0, 1]}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    assert np.array_equal(read(opened(tmp_path), "train", [1])[0].pixels, LARGE[1])


def test_several_label_columns_are_said_to_be_there(tmp_path):
    write(tmp_path / "train.parquet", [0, 1, 1], fine_label=[2, 1, 0])
    dataset = opened(tmp_path)
    assert dataset.labels["train"].tolist() == [0, 1, 1]
    assert any("fine_label" in note for note in dataset.notes)


def test_all_files_are_read_from_one_column(tmp_path):
    write(tmp_path / "train.parquet", [0, 1, 1], fine_label=[2, 1, 0], img=[encoded(each) for each in SMALL[:3]])
    write(tmp_path / "test.parquet", [2, 1, 0], label="fine_label", image="img")
    dataset = opened(tmp_path)
    assert dataset.labels["train"].tolist() == dataset.labels["test"].tolist() == [2, 1, 0]
    assert read(dataset, "train", [1])[0].pixels.shape == SMALL.shape[1:]
    assert any("from column fine_label, not from label" in note for note in dataset.notes)
    write(tmp_path / "test.parquet", [1, 0], label="labels")
    assert opened(tmp_path).labels["test"].tolist() == [1, 0]  # where none is in all, each file's own


def test_names_belong_to_the_column_that_is_read(tmp_path):
    columns = {"image": [encoded(each) for each in LARGE[:2]], "label": [0, 1], "fine_label": [0, 1]}
    features = {"fine_label": {"names": ["ant", "bee"]}, "label": {"dtype": "int64"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), tmp_path / "train.parquet")
    assert opened(tmp_path).class_names == ("0", "1")


@pytest.mark.parametrize("other", ["train-1.parquet", "test.parquet"])
def test_files_that_number_the_classes_otherwise_are_read_by_name(tmp_path, other):
    write(tmp_path / "train-0.parquet", [0, 1, 2], ["ant", "bee", "cow"])
    write(tmp_path / other, [0, 1, 2], ["cow", "ant", "bee"])
    dataset = opened(tmp_path)
    assert dataset.class_names == ("ant", "bee", "cow")
    assert dataset.labels[other[:-8].partition("-")[0]].tolist()[-3:] == [2, 0, 1]


def test_names_of_a_later_training_file_count_and_fewer_names_do(tmp_path):
    write(tmp_path / "train-0.parquet", [0, 1, 2])
    write(tmp_path / "train-1.parquet", [0, 1, 2], ["ant", "bee", "cow"])
    write(tmp_path / "test.parquet", [0, 1], ["cow", "ant"])
    dataset = opened(tmp_path)
    assert dataset.class_names == ("ant", "bee", "cow")
    assert dataset.labels["test"].tolist() == [2, 0]


def test_names_that_contradict_each_other_are_refused(tmp_path):
    write(tmp_path / "train.parquet", [0, 1], ["ant", "bee"])
    write(tmp_path / "test.parquet", [0, 1], ["ant", "cow"])
    with pytest.raises(UserError, match=r"test.parquet: .*'cow'.*train.parquet"):
        opened(tmp_path)


def test_a_name_that_two_classes_have_is_no_obstacle_where_all_files_agree(tmp_path):
    """ImageNet has two cranes."""
    for name in ("train", "test"):
        write(tmp_path / f"{name}.parquet", [0, 1, 2], ["crane", "bee", "crane"])
    assert opened(tmp_path).labels["test"].tolist() == [0, 1, 2]
    write(tmp_path / "test.parquet", [0, 1, 2], ["bee", "crane", "crane"])
    with pytest.raises(UserError, match="'crane' twice"):
        opened(tmp_path)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_labels_that_are_known_names_are_taken(tmp_path, kind):
    write(tmp_path / "train.parquet", pa.array(["bee", "ant", "bee"]).cast(kind), ["ant", "bee"])
    write(tmp_path / "test.parquet", [1, 0])
    dataset = opened(tmp_path)
    assert dataset.labels["train"].tolist() == [1, 0, 1]
    assert dataset.labels["train"].dtype == np.int64
    write(tmp_path / "train.parquet", pa.array(["bee", "ant", "dog"]).cast(kind), ["ant", "bee"])
    with pytest.raises(UserError, match=r"train.parquet row 2: label 'dog' is none of the classes ant, bee"):
        opened(tmp_path)


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint8(), pa.uint64(), pa.float32(), pa.float64()])
def test_whole_numbers_of_any_type_are_labels(tmp_path, kind):
    write(tmp_path / "train.parquet", pa.array([2, 0, 1]).cast(kind))
    assert opened(tmp_path).labels["train"].tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (pa.array([True, False]), "no integer column named label.*label is bool"),
        (pa.array(["ant", "bee"]), "no integer column named label.*label is string"),
        (pa.array([[0], [1]]), "no integer column named label.*label is list"),
        (pa.array([0, 1], pa.timestamp("s")), "no integer column named label.*label is timestamp"),
        (pa.array([0.0, 1.5]), r"train.parquet row 1: label 1.5 is no integer"),
        (pa.array([0.0, float("inf")]), r"train.parquet row 1: label inf is no integer"),
        (pa.array([0, 2**64 - 1], pa.uint64()), r"train.parquet row 1: label 18446744073709551615 is no class"),
        (pa.array([0.0, -1e30]), r"train.parquet row 1: label -1e\+30 is no class"),
        (pa.array([0, 2**62]), r"train.parquet row 1: label 4611686018427387904 is no class"),
        (pa.array([0, None, 1]), r"train.parquet: 1 rows have no label, the first is row 1"),
        (pa.array([0.0, None, 1.0]), r"train.parquet: 1 rows have no label, the first is row 1"),
        (pa.array([0, 1, -1]), r"train.parquet row 2: label -1 \(split train, row 2\)"),
        (pa.array([0, 1, -2]), r"train.parquet row 2: label -2 \(split train, row 2\)"),
        (pa.array([None, None]), r"train.parquet row 0: label -1"),
    ],
    ids=str,
)
def test_labels_that_are_none_are_refused_with_type_file_and_row(tmp_path, labels, said):
    write(tmp_path / "train.parquet", labels)
    with pytest.raises(UserError, match=said) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [[-1, -1], pa.array([None, None], pa.int64()), [float("nan")] * 2, [None, None]])
def test_a_test_split_without_labels_is_left_out(tmp_path, labels):
    write(tmp_path / "train.parquet", [0, 1])
    write(tmp_path / "validation.parquet", [1, 0, 1, 0])
    write(tmp_path / "test.parquet", labels)
    dataset = opened(tmp_path)
    assert set(dataset.labels) == {"train", "val"}
    assert any("split test has no labels" in note for note in dataset.notes)
    (tmp_path / "validation.parquet").unlink()
    with pytest.raises(UserError, match=r"split test has no labels.*decide-on train"):
        assign_roles(opened(tmp_path), "holdout", 0)
    assert assign_roles(opened(tmp_path), "train", 0).validation.split == "train"


def test_a_test_split_with_some_labels_missing_is_refused_by_row(tmp_path):
    write(tmp_path / "train.parquet", [0, 1])
    write(tmp_path / "test.parquet", [0, -1])
    with pytest.raises(UserError, match=r"test.parquet row 1: label -1 \(split test, row 1\)"):
        opened(tmp_path)


def test_one_rule_for_labels_of_one_s_own():
    assert [number_of(value, ()) for value in (3, np.uint8(3), 3.0, np.float32(3))] == [3] * 4
    assert number_of(None, ()) == number_of(float("nan"), ()) == -1
    assert number_of("bee", ("ant", "bee")) == number_of(b"bee", ("ant", "bee")) == 1
    for value in (True, 0.5, "bee", [1], 2**70, np.zeros(1000)):
        assert "label" in str(number_of(value, ()))
        assert "\n" not in str(number_of(value, ()))
        assert isinstance(number_of(value, ()), str)
