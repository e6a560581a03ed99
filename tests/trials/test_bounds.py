"""Draws from the box of a space."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ice_runs import DIGITS

from ice_ray.errors import UserError
from ice_ray.hyperparameters import NEVER, Hyperparameters, IceHyperparameters, searched
from ice_ray.trials.sampler import Sampling
from ice_ray.trials.space import SearchBounds, Space, load_space

CIFAR = load_space("paper-cifar10").bounds


def test_the_bounds_span_the_values_of_the_space():
    assert CIFAR.ranges["steepness"] == (40, 60)
    assert CIFAR.ranges["base_learning_rate"] == (0.001, 0.005)
    unordered = Space("mine", {**load_space("paper-cifar10").values, "steepness": (50.0, 30.0, 40.0)})
    assert unordered.bounds.ranges["steepness"] == (30, 50)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["paper-cifar10", "paper-imagenet", "default", DIGITS]))
def test_every_draw_is_inside(seed, name):
    bounds = load_space(name).bounds
    for point in bounds.draw(20, seed):
        bounds.check(point, "a draw")


def test_draws_are_seeded_and_the_first_ones_do_not_depend_on_the_count():
    six = CIFAR.draw(6, seed=0)
    assert six == CIFAR.draw(12, seed=0)[:6] != CIFAR.draw(6, seed=1)
    assert len(set(six)) == 6


def test_rates_are_uniform_on_a_logarithmic_scale_and_the_others_on_their_own():
    """Of 4,000 draws half lie below the middle: geometric for rates, arithmetic for others; 6 sigma = 190."""
    wide = SearchBounds("wide", {**CIFAR.ranges, "base_learning_rate": (1e-3, 1e-1)})
    draws = wide.draw(4000, seed=0)
    assert abs(sum(point.base_learning_rate < 1e-2 for point in draws) - 2000) < 190
    assert abs(sum(point.steepness < 50 for point in draws) - 2000) < 190
    rates = np.log([point.learning_rate_reduction for point in draws])
    assert rates.mean() == pytest.approx((math.log(6e-4) + math.log(8e-4)) / 2, abs=0.01)


def test_a_single_value_stays():
    digits = load_space(DIGITS).bounds
    assert {point.learning_rate_reduction for point in digits.draw(10, 0)} == {0.005}
    assert not digits.is_a_point
    assert SearchBounds("one", dict.fromkeys(digits.ranges, (0.1, 0.1))).is_a_point


@dataclass(frozen=True)
class Own(Hyperparameters):
    """One that a space may leave out, and that is not 0 then."""

    share: float = searched("s", default=0.9)
    rate: float = searched("r", logarithmic=True, default=0.1)


def test_what_the_space_leaves_out_is_at_its_default():
    bounds = SearchBounds("mine", {"rate": (0.0, 0.5)}, Own)
    bounds.check(Own(rate=0.3), "here")
    with pytest.raises(UserError, match=r"share=0\.5 is outside"):
        bounds.check(Own(share=0.5, rate=0.3), "here")


def test_from_nothing_on_there_is_no_logarithmic_scale():
    draws = SearchBounds("mine", {"rate": (0.0, 0.5)}, Own).draw(2000, 0)
    assert abs(sum(point.rate < 0.25 for point in draws) - 1000) < 140
    assert Sampling("tpe", SearchBounds("mine", {"rate": (0.0, 0.5)}, Own), 4, 0).suggest([], 1).share == 0.9


def test_a_point_outside_is_named():
    point = IceHyperparameters(0.5, 0.3, 0.05, 6e-4, 0.1, 40)
    with pytest.raises(UserError, match=r"here: base_learning_rate=0.05 is outside of space 'paper-cifar10' \(0.001"):
        CIFAR.check(point, "here")


MIXED_VALUES = {
    **load_space("paper-cifar10").values,
    "accuracy_drop_threshold": (NEVER, 1.0, 2.0),
    "final_epochs": (0.0, 4.0),
    "final_learning_rate": (0.01, 0.03),
}
MIXED = Space("mixed", MIXED_VALUES).bounds
ALONE = Space("alone", {**load_space("paper-cifar10").values, "accuracy_drop_threshold": (NEVER,)}).bounds


def test_the_bounds_of_a_space_with_never_span_it_and_the_range_of_the_others():
    assert MIXED.ranges["accuracy_drop_threshold"] == (1, 2)
    assert (MIXED.nevers, MIXED.choices) == (("accuracy_drop_threshold",), ("accuracy_drop_threshold",))
    assert ALONE.ranges == {}
    assert ALONE.is_a_point
    assert not ALONE.choices
    assert ALONE.draw(2, 0) == (IceHyperparameters(),) * 2
    one = Space(
        "one", {name: values[:1] for name, values in MIXED_VALUES.items()} | {"accuracy_drop_threshold": (NEVER, 1)}
    )
    assert not one.bounds.is_a_point
    assert MIXED.greatest.freezes
    assert not ALONE.greatest.freezes


@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_draws_with_never_are_inside_and_half_of_them_are_never(seed):
    draws = MIXED.draw(100, seed)
    assert draws[:7] == MIXED.draw(7, seed)
    for point in draws:
        MIXED.check(point, "a draw")
    never = [point for point in draws if point.accuracy_drop_threshold == NEVER]
    assert abs(len(never) - 50) < 35  # 7 sigma
    assert {(point.frozen_fraction, point.base_learning_rate, point.steepness) for point in never} == {(0, 0, 0)}
    assert all(0 < point.final_epochs < 4 for point in draws)


def test_without_never_draws_are_what_they_were():
    assert CIFAR.draw(1, 0)[0].as_dict() == pytest.approx(
        {
            "accuracy_drop_threshold": 1.296773574505714,
            "frozen_fraction": 0.4437796402626427,
            "base_learning_rate": 0.0012021782890558,
            "learning_rate_reduction": 0.0007755255209256518,
            "midpoint_pruned_share": 0.15291458381446144,
            "steepness": 47.39643996950244,
            "final_epochs": 0.0,
            "final_learning_rate": 0.0,
        },
        rel=1e-12,
    )


def test_a_point_outside_of_bounds_with_never_is_named():
    MIXED.check(IceHyperparameters(), "here")
    with pytest.raises(UserError, match=r"=never is outside of space 'paper-cifar10' \(0.5 to 1.5\)"):
        CIFAR.check(IceHyperparameters(), "here")
    with pytest.raises(UserError, match=r"accuracy_drop_threshold=0.5 is outside of space 'mixed' \(1 to 2 or never\)"):
        MIXED.check(IceHyperparameters(0.5, 0.3, 0.002, 6e-4, 0.1, 40), "here")
    with pytest.raises(UserError, match=r"accuracy_drop_threshold=0.5 is outside of space 'alone' \(never\)"):
        ALONE.check(IceHyperparameters(0.5, 0.3, 0.002, 6e-4, 0.1, 40), "here")
