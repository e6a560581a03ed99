"""Ranges of the six hyperparameters."""

import pytest

from ice_ray.errors import UserError
from ice_ray.hyperparameters import Hyperparameters

GOOD = {
    "accuracy_drop_threshold": 1.5,
    "frozen_fraction": 0.3,
    "base_learning_rate": 1e-3,
    "learning_rate_reduction": 7e-4,
    "midpoint_pruned_share": 0.1,
    "steepness": 50.0,
}


def test_good_values_are_kept():
    assert Hyperparameters.from_mapping(GOOD).as_dict() == GOOD


@pytest.mark.parametrize(
    ("name", "value", "bound"),
    [
        ("accuracy_drop_threshold", -0.1, "at least 0"),
        ("frozen_fraction", 1.01, "[0, 1]"),
        ("frozen_fraction", -0.01, "[0, 1]"),
        ("base_learning_rate", 0.0, "above 0"),
        ("learning_rate_reduction", 1e-3, "base_learning_rate=0.001"),
        ("learning_rate_reduction", 0.0, "base_learning_rate=0.001"),
        ("midpoint_pruned_share", 0.51, "(0, 0.5]"),
        ("midpoint_pruned_share", 0.0, "(0, 0.5]"),
        ("steepness", 0.0, "above 0"),
        ("steepness", float("nan"), "finite"),
        ("steepness", float("inf"), "finite"),
        ("steepness", True, "finite"),
    ],
)
def test_a_value_outside_its_range_is_named_with_the_bound(name, value, bound):
    with pytest.raises(UserError) as error:
        Hyperparameters.from_mapping(GOOD | {name: value})
    assert name in str(error.value)
    assert bound in str(error.value)


def test_bounds_that_belong_to_the_range_are_taken():
    Hyperparameters.from_mapping(
        GOOD | {"frozen_fraction": 1, "midpoint_pruned_share": 0.5, "accuracy_drop_threshold": 0}
    )


def test_missing_and_unknown_names_are_said():
    values = dict(GOOD)
    values["stepness"] = values.pop("steepness")
    with pytest.raises(UserError, match="missing steepness; unknown stepness"):
        Hyperparameters.from_mapping(values)
