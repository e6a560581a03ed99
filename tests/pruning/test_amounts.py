"""How many filters go: exact ceilings, ratios by layer, rounded widths, equal groups."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ice_ray.errors import UserError
from ice_ray.models.units import PrunableUnit, PruningStep
from ice_ray.pruning.amounts import Amounts, parse_ratios, removed_count
from ice_ray.pruning.config import LayerwisePruneConfig


def unit(filters: int, groups: int = 1, layer: str = "layer1.0.conv1") -> PrunableUnit:
    return PrunableUnit(layer, filters, ("next",), (), groups)


def steps(*units: PrunableUnit) -> tuple[PruningStep, ...]:
    return tuple(PruningStep(number, (each,)) for number, each in enumerate(units, start=1))


@pytest.mark.parametrize(
    ("ratio", "filters", "removed"),
    [(0.55, 100, 55), (0.6, 16, 10), (0.6, 32, 20), (0.6, 64, 39), (0.5, 7, 4), (0.07, 100, 7), (1e-9, 5, 1)],
)
def test_the_number_removed_is_an_exact_ceiling(ratio, filters, removed):
    assert removed_count(ratio, filters) == removed
    assert Amounts(ratio).removed(unit(filters)) == removed


@given(st.integers(1, 99), st.integers(1, 4096))
def test_whole_percentages_agree_with_whole_number_arithmetic(percent, filters):
    assert removed_count(percent / 100, filters) == -(-percent * filters // 100)


@given(st.floats(0.01, 0.99), st.integers(2, 64), st.integers(1, 12), st.sampled_from([1, 2, 4, 8, 16]))
def test_widths_are_multiples_groups_stay_equal_and_no_layer_loses_more_than_its_ratio(ratio, run, groups, multiple):
    own = unit(run * groups, groups)
    kept = own.filters - Amounts(ratio, round_to=multiple).removed(own)
    assert 0 <= kept <= own.filters
    assert kept % groups == 0
    assert kept % multiple == 0 or kept == own.filters
    assert kept >= own.filters - groups * removed_count(ratio, run)
    assert kept < own.filters - groups * removed_count(ratio, run) + multiple * groups or kept == own.filters


@pytest.mark.parametrize(
    ("filters", "groups", "multiple", "kept"),
    [
        (64, 1, 8, 32),  # 25 are left, the next multiple
        (100, 1, 8, 40),
        (8, 1, 8, 8),  # 3 are left, so none goes
        (64, 4, 8, 24),  # 6 of each 16: a multiple already
        (440, 55, 1, 165),  # 3 of each 8
        (440, 55, 8, 440),  # 55 x 8 is the least multiple of both
    ],
)
def test_rounding_by_hand_at_a_ratio_of_60_percent(filters, groups, multiple, kept):
    own = unit(filters, groups)
    assert own.filters - Amounts(0.6, round_to=multiple).removed(own) == kept


def test_ratios_by_layer_take_the_first_match_and_zero_spares():
    amounts = Amounts(0.5, (("layer1.*", 0.25), ("layer*.conv1", 0.75), ("head", 0.0)))
    assert [amounts.ratio_of(name) for name in ("layer1.0.conv1", "layer2.0.conv1", "stem", "head")] == [
        0.25,
        0.75,
        0.5,
        0,
    ]
    assert amounts.removed(unit(8, layer="head")) == 0
    left = amounts.losing(steps(unit(8, layer="head"), unit(8, layer="layer1.0.conv1")))
    assert [(step.number, step.name) for step in left] == [(1, "layer1.0.conv1")]


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, float("nan"), float("inf")])
def test_a_ratio_that_is_none_is_refused(ratio):
    with pytest.raises(UserError, match="inside"):
        Amounts(ratio).check(steps(unit(16)))


def test_a_ratio_that_would_empty_a_layer_is_refused_with_the_most_that_can_be():
    with pytest.raises(UserError, match=r"would empty layer layer1.0.conv1 \(16 filters\); take at most 0.937"):
        Amounts(0.94).check(steps(unit(16)))
    Amounts(0.937).check(steps(unit(16)))
    with pytest.raises(UserError, match=r"\(16 filters in 4 groups\); take at most 0.75"):
        Amounts(0.8).check(steps(unit(16, 4)))


def test_amounts_under_which_nothing_goes_or_that_name_no_layer_are_refused():
    with pytest.raises(UserError, match="nothing would be removed"):
        Amounts(0.5, round_to=64).check(steps(unit(16)))
    with pytest.raises(UserError, match=r"'layer9.\*' matches none"):
        Amounts(0.5, (("layer9.*", 0.3),)).check(steps(unit(16)))


def test_the_file_of_ratios(tmp_path):
    path = tmp_path / "ratios.yaml"
    path.write_text("layer1.*: 0.25\nlayer2.0.conv1: 0\n")
    named = (("layer1.*", 0.25), ("layer2.0.conv1", 0.0))
    kept = LayerwisePruneConfig(ratios=(str(path),))
    assert kept.by_layer == LayerwisePruneConfig(ratios=("layer1.*=0.25", "layer2.0.conv1=0")).by_layer == named
    path.unlink()
    assert kept.by_layer == named  # the file has been read
    for text, said in (("- 1", "must map"), ("a: half", "not a number"), ("a: [", "not YAML")):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            LayerwisePruneConfig(ratios=(str(path),))
    with pytest.raises(UserError, match="no such file"):
        LayerwisePruneConfig(ratios=(str(tmp_path / "none.yaml"),))
    with pytest.raises(UserError, match="ratios 'a=half': a has 'half', not a number"):
        LayerwisePruneConfig(ratios=("a=half",))
    with pytest.raises(UserError, match="must map"):
        parse_ratios({}, "x")
