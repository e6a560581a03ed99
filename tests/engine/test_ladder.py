"""Targets with several rungs: what is a ladder, and which widths its rungs have."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ice_ray.engine.allocation import allocation_for, find
from ice_ray.engine.config import parse_rung, parse_target
from ice_ray.engine.target import macs
from ice_ray.engine.width_losses import width_losses
from ice_ray.errors import UserError
from ice_ray.pruning.allocation import Curve, allocate, allowed
from ice_ray.pruning.amounts import Amounts

CPU = torch.device("cpu")


def test_a_ladder_is_read_rung_by_rung():
    rungs = parse_target("macs=0.8,0.6 params=0.9,0.7")
    assert [" ".join(map(str, targets)) for targets in rungs] == ["macs=0.8 params=0.9", "macs=0.6 params=0.7"]
    assert parse_rung("macs=0.5", "a test") == parse_target("macs=0.5")[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("macs=0.6,0.8", "'macs=0.6,0.8' must go down: macs=0.8 does not leave less than macs=0.6"),
        ("macs=0.6,0.6", "must go down"),
        ("macs=0.8,0.6 params=0.9", "as many shares of one quantity as of the other"),
        ("macs=0.8,0.6 params=0.5,0.7", "must go down: params=0.7 does not"),
        ("macs=0.8,", "inside"),
        ("macs=0.8,1.6", "inside"),
        ("macs=0.8, 0.6", "inside"),
    ],
)
def test_what_is_no_ladder_is_refused_in_one_line(text, said):
    with pytest.raises(UserError, match=said) as error:
        parse_target(text)
    assert "\n" not in str(error.value)


def test_what_takes_one_rung_says_so():
    with pytest.raises(UserError, match=r"target 'macs=0.8,0.6' is a ladder, and inspect takes one share"):
        parse_rung("macs=0.8,0.6", "inspect")


def widths_of(found, network):
    return [{unit.layer: unit.filters - own.removed(unit) for unit in network.units} for own in found]


@pytest.mark.parametrize("with_images", [True, False])
def test_every_rung_holds_its_budget_and_takes_from_the_one_above(network, data, with_images):
    amounts, dense = Amounts(0.5), network.build(CPU)
    found, _ = find(parse_target("macs=0.8,0.6,0.4"), network, amounts, CPU, "fp32", (data, 0) if with_images else None)
    widths = widths_of([rung.on(amounts) for rung in found.rungs], network)
    for share, own in zip((0.8, 0.6, 0.4), widths, strict=True):
        assert macs(network, network.build_pruned(own, CPU)) <= share * macs(network, dense)
    for above, below in itertools.pairwise(widths):
        assert all(below[layer] <= width for layer, width in above.items())
    last = found.on_rung(amounts)
    for unit in network.units:
        assert last.removed_now(unit) == widths[1][unit.layer] - widths[2][unit.layer]
    whole = network.on_rung(last)
    assert {unit.layer for step in whole.steps for unit in step.units} <= {unit.layer for unit in network.units}
    assert whole.units == network.units
    assert found.rungs[0].on_rung(amounts).above is None


def test_the_losses_are_measured_once_and_a_first_rung_is_that_of_a_run_alone(network, data):
    def alone(target):
        return allocation_for(parse_target(target), network, Amounts(0.5), data, 0, CPU, "fp32")

    ladder = alone("macs=0.8,0.5")
    assert ladder.rungs[0].widths == alone("macs=0.8").widths
    assert ladder.on_rung(Amounts(0.5)).allocation.seconds == 0 < ladder.on(Amounts(0.5)).allocation.seconds


def test_a_rung_that_takes_nothing_is_refused(network, data):
    with pytest.raises(UserError, match=r"target macs=0.4999 takes no filter that the rung above it has left"):
        find(parse_target("macs=0.5,0.4999"), network, Amounts(0.5), CPU, "fp32", (data, 0))


@pytest.fixture(scope="module")
def losses(network, data):
    return width_losses(network, data, 0, CPU)


@settings(max_examples=25, deadline=None)
@given(data_=st.data())
def test_any_ladder_is_nested_and_could_take_no_more(network, losses, data_):
    """Whatever widths cost."""
    random = np.random.default_rng(data_.draw(st.integers(0, 2**31)))
    shares = sorted(data_.draw(st.sets(st.floats(0.2, 0.95), min_size=2, max_size=4)), reverse=True)
    curves = [
        Curve(
            curve.unit, dict(zip(curve.widths, np.sort(random.random(len(curve.widths)))[::-1].tolist(), strict=True))
        )
        for curve in losses.curves
    ]
    above = {curve.unit.layer: curve.unit.filters for curve in curves}
    for share in shares:
        bounded = [allowed(curve, Amounts(0.5), True, above[curve.unit.layer]) for curve in curves]
        widths = allocate(bounded, network.footprint, {"macs": share})
        assert widths is not None
        assert network.footprint.share("macs", widths) <= share + 1e-9
        for curve in bounded:
            layer = curve.unit.layer
            assert widths[layer] <= above[layer]
            wider = [width for width in curve.widths if width > widths[layer]]
            if wider:
                assert network.footprint.share("macs", widths | {layer: wider[0]}) > share
        above = widths
