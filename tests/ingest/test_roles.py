"""Roles: no image decides and reports, none of either is trained on."""

import numpy as np
import pytest

from ice_ray.errors import UserError
from ice_ray.ingest.datasets.base import Dataset, numbered
from ice_ray.ingest.roles import assign_roles, subsample


class Labels(Dataset):
    """Labels alone: roles look at nothing else."""

    def __init__(self, **labels) -> None:
        self.labels = {split: np.arange(count) % 5 for split, count in labels.items()}
        self.class_names = numbered(4)

    def read(self, split, rows):
        yield from ()


def taken(rows):
    return {(rows.split, int(index)) for index in rows.indices}


def test_validation_decides_and_test_reports_where_both_exist():
    roles = assign_roles(Labels(train=100, val=20, test=30), "holdout", 0)
    assert [(rows.split, len(rows)) for rows in (roles.train, roles.validation, roles.test)] == [
        ("train", 100),
        ("val", 20),
        ("test", 30),
    ]


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_single_held_out_split_is_divided_whatever_its_name(split):
    roles = assign_roles(Labels(train=100, **{split: 50}), "holdout", 0)
    assert len(roles.validation) == len(roles.test) == 25
    assert not taken(roles.validation) & taken(roles.test)
    assert np.bincount(roles.validation.indices % 5).tolist() == [5] * 5


def test_the_paper_s_way_asks_everything_of_one_split():
    roles = assign_roles(Labels(train=100, val=20, test=30), "test", 0)
    assert taken(roles.validation) == taken(roles.test)
    assert roles.validation.split == "test"
    assert len(roles.validation) == 30


def test_a_tenth_of_training_is_taken_out():
    roles = assign_roles(Labels(train=1000), "train", 0)
    assert (len(roles.train), len(roles.validation), len(roles.test)) == (900, 50, 50)
    assert not taken(roles.train) & taken(roles.validation)
    assert not taken(roles.train) & taken(roles.test)
    assert not taken(roles.validation) & taken(roles.test)


@pytest.mark.parametrize("way", ["holdout", "test"])
def test_without_a_held_out_split_the_user_must_say(way):
    with pytest.raises(UserError, match="decide-on train"):
        assign_roles(Labels(train=100), way, 0)


def test_a_subsample_is_of_those_rows_and_all_of_them_at_most():
    roles = assign_roles(Labels(train=100, test=50), "holdout", 0)
    some = subsample(Labels(train=100, test=50), roles.validation, 10, 0, "test")
    assert taken(some) < taken(roles.validation)
    assert len(some) == 10
    assert subsample(Labels(train=100, test=50), roles.validation, 99, 0, "test") == roles.validation
