"""Ranges of the six hyperparameters."""

from dataclasses import dataclass

import pytest

from ice_ray.errors import UserError
from ice_ray.hyperparameters import Hyperparameters, IceHyperparameters, searched

GOOD = {
    "accuracy_drop_threshold": 1.5,
    "frozen_fraction": 0.3,
    "base_learning_rate": 1e-3,
    "learning_rate_reduction": 7e-4,
    "midpoint_pruned_share": 0.1,
    "steepness": 50.0,
}


def test_good_values_are_kept():
    assert IceHyperparameters.from_mapping(GOOD).as_dict() == GOOD | {"final_epochs": 0.0, "final_learning_rate": 0.0}


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
        ("final_epochs", -1, "at least 0"),
        ("final_epochs", 1, "above 0 where there are final_epochs"),
        ("final_learning_rate", -1, "at least 0"),
        ("steepness", float("nan"), "finite"),
        ("steepness", float("inf"), "finite"),
        ("steepness", True, "finite"),
    ],
)
def test_a_value_outside_its_range_is_named_with_the_bound(name, value, bound):
    with pytest.raises(UserError) as error:
        IceHyperparameters.from_mapping(GOOD | {name: value})
    assert (name if name != "final_epochs" else "final_") in str(error.value)
    assert bound in str(error.value)


def test_bounds_that_belong_to_the_range_are_taken():
    IceHyperparameters.from_mapping(
        GOOD | {"frozen_fraction": 1, "midpoint_pruned_share": 0.5, "accuracy_drop_threshold": 0}
    )


def test_missing_and_unknown_names_are_said():
    values = dict(GOOD)
    values["stepness"] = values.pop("steepness")
    with pytest.raises(UserError, match="missing steepness; unknown stepness"):
        IceHyperparameters.from_mapping(values)


def test_they_say_what_they_are_and_no_more_than_was_chosen():
    assert str(IceHyperparameters.from_mapping(GOOD)) == "theta 1.5, eta 0.3, LR 0.001, Delta 0.0007, p 0.1, beta 50"
    longer = IceHyperparameters.from_mapping(GOOD | {"final_epochs": 0.5, "final_learning_rate": 0.05})
    assert str(longer).endswith("beta 50, final epochs 0.5, final LR 0.05")
    assert list(longer.as_dict())[-2:] == ["final_epochs", "final_learning_rate"]


def test_another_pipeline_s_are_a_dataclass_of_their_own():
    @dataclass(frozen=True)
    class Own(Hyperparameters):
        phases: float = searched("J")
        rate: float = searched("LR", logarithmic=True)

    assert Own.from_mapping({"phases": 2, "rate": 0.1}) == Own(2, 0.1)
    assert Own.names() == ("phases", "rate", "final_epochs", "final_learning_rate")
    assert Own.logarithmic() == {"rate", "final_learning_rate"}
    assert not Own(2, 0.1).freezes
    with pytest.raises(UserError, match="missing phases"):
        Own.from_mapping({"rate": 0.1})
    assert IceHyperparameters.from_mapping(GOOD).freezes
