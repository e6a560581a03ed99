"""Names of datasets, digits, and what a dataset's labels must be."""

import pytest
from conformance import read

from ice_ray.errors import UserError
from ice_ray.ingest.datasets import open_dataset


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("digts", "nearest: digits"),
        ("parquet", "needs a path"),
        ("imagefolder:", "needs a path"),
        ("tinyimagenet", "needs a path"),
        ("imagenet", "needs a path"),
        ("digits:x", "takes no argument"),
        ("parquet:/no/such/place", "no such folder"),
        ("imagefolder:photos", "no such folder"),  # though it looks like a function
        ("imagefoldr:photos", "nearest: imagefolder"),
        ("no.such.module:build", "No module named 'no'.*or one of ours"),
        ("json:no_such", "no attribute 'no_such'"),
    ],
)
def test_names_that_are_wrong(name, said):
    with pytest.raises(UserError, match=said):
        open_dataset(name)


def test_a_set_of_one_size_does_not_take_another():
    with pytest.raises(UserError, match="leave the image size out"):
        open_dataset("digits", image_size=16)


def test_digits_are_split_once_and_for_all():
    dataset = open_dataset("digits")
    assert {split: len(labels) for split, labels in dataset.labels.items()} == {"train": 1258, "test": 539}
    assert set(dataset.labels["test"]) == set(range(10))
    assert dataset.class_names == tuple("0123456789")
    assert read(dataset, "test", [3])[0].pixels.shape == (8, 8, 3)
