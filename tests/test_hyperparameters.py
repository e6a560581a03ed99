"""Ranges of the six hyperparameters."""

import dataclasses
import json
from dataclasses import dataclass

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ice_ray.errors import UserError
from ice_ray.hyperparameters import NEVER, Hyperparameters, IceHyperparameters, searched
from ice_ray.observe.trials_table import read_finished, read_trials, write_trials
from ice_ray.trials.run import TrialResult

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
        ("steepness", "never", "finite"),
        ("final_epochs", "never", "finite"),
        ("accuracy_drop_threshold", float("-inf"), "finite"),
        ("accuracy_drop_threshold", "always", "finite"),
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


def test_the_default_is_never_and_says_nothing_of_what_decides_nothing():
    assert IceHyperparameters() == IceHyperparameters(NEVER, 0, 0, 0, 0, 0)
    assert str(IceHyperparameters()) == "theta never"
    assert not IceHyperparameters().freezes
    retrained = IceHyperparameters(final_epochs=4, final_learning_rate=0.01)
    assert str(retrained) == "theta never, final epochs 4, final LR 0.01"
    assert str(IceHyperparameters(NEVER, 0.3, 1e-3)) == "theta never"
    assert "eta 0, " in str(IceHyperparameters.from_mapping(GOOD | {"frozen_fraction": 0}))


@pytest.mark.parametrize(
    "name", ["base_learning_rate", "learning_rate_reduction", "midpoint_pruned_share", "steepness"]
)
def test_what_a_threshold_needs_is_refused_by_name_where_it_is_left_at_its_default(name):
    with pytest.raises(UserError, match=f"hyperparameter {name}=0 must be "):
        IceHyperparameters(**{key: value for key, value in GOOD.items() if key != name})
    with pytest.raises(UserError, match="base_learning_rate=0 must be above 0"):
        IceHyperparameters(1.5)


def test_where_theta_is_never_the_others_may_be_what_they_would_have_to_be_and_no_worse():
    IceHyperparameters.from_mapping(GOOD | {"accuracy_drop_threshold": "never"})
    with pytest.raises(UserError, match="steepness=-1 must be above 0"):
        IceHyperparameters(NEVER, steepness=-1)


@given(st.floats(0, 1), st.floats(0.01, 1), st.sampled_from([0.0, 0.5, 4.0]))
def test_points_that_mean_the_same_are_one(eta, rate, epochs):
    never = IceHyperparameters(NEVER, eta, rate, rate / 2, 0.1, 50, final_epochs=epochs, final_learning_rate=rate)
    assert not never.freezes
    final = {"final_epochs": epochs, "final_learning_rate": rate} if epochs else {}
    assert never.settled == IceHyperparameters(**final) == never.settled.settled
    finite = dataclasses.replace(never, accuracy_drop_threshold=1)
    assert finite.settled == (finite if epochs else dataclasses.replace(finite, final_learning_rate=0))
    assert finite.freezes == (eta > 0)


@given(
    st.floats(0, 100) | st.just(NEVER),
    st.floats(0, 1),
    st.floats(1e-6, 1e3),
    st.floats(0.01, 0.99),
    st.floats(0.01, 0.5),
    st.floats(0.1, 100),
    st.floats(0, 10),
)
def test_they_are_read_back_from_json_and_yaml(theta, eta, rate, share, middle, steepness, epochs):
    """As strict JSON: infinity is no number there."""
    own = IceHyperparameters(
        theta, eta, rate, share * rate, middle, steepness, final_epochs=epochs, final_learning_rate=1
    )
    for point in (own, own.settled):
        assert IceHyperparameters.from_mapping(json.loads(json.dumps(point.plain(), allow_nan=False))) == point
        assert IceHyperparameters.from_mapping(yaml.safe_load(yaml.safe_dump(point.plain()))) == point
        assert IceHyperparameters.from_mapping(point.as_dict()) == point
        assert all(isinstance(value, float) for value in point.as_dict().values())
        assert point.plain()["accuracy_drop_threshold"] == ("never" if theta == NEVER else theta)


def test_what_must_be_named_depends_on_theta():
    assert IceHyperparameters.from_mapping({"accuracy_drop_threshold": "never"}) == IceHyperparameters()
    with pytest.raises(UserError, match=r"missing frozen_fraction \(accuracy_drop_threshold is not never throughout"):
        IceHyperparameters.from_mapping({name: value for name, value in GOOD.items() if name != "frozen_fraction"})
    with pytest.raises(UserError, match="missing accuracy_drop_threshold, base_learning_rate"):
        IceHyperparameters.from_mapping({"final_epochs": 1})


def test_the_table_of_trials_keeps_never(tmp_path):
    retrained = IceHyperparameters(final_epochs=4, final_learning_rate=0.01)
    write_trials(tmp_path / "trials.parquet", [TrialResult(7, retrained, (), "", "")])
    assert read_finished(tmp_path / "trials.parquet", 7, IceHyperparameters) == retrained
    (trial,) = read_trials(tmp_path / "trials.parquet")
    assert trial.hyperparameters == retrained.as_dict()
