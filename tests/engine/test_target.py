"""--target: the least ratio that leaves no more than the share asked for."""

import pytest
import torch
from torch import nn

from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.target import Target, macs, parse_target, ratio_for
from ice_ray.errors import UserError
from ice_ray.pruning.amounts import Amounts

CPU = torch.device("cpu")


def found(network: DenseNetwork, target: str, **amounts):
    return ratio_for(parse_target(target), network, Amounts(0.5, **amounts), CPU, "fp32")


def shares(network: DenseNetwork, ratio: float, **amounts) -> tuple[float, float]:
    """Parameters and multiply-adds left, by removing for real."""
    own = Amounts(ratio, **amounts)
    dense = network.build(CPU)
    pruned = network.build_pruned({unit.layer: unit.filters - own.removed(unit) for unit in network.units}, CPU)
    count = [sum(parameter.numel() for parameter in model.parameters()) for model in (pruned, dense)]
    return count[0] / count[1], macs(network, pruned) / macs(network, dense)


@pytest.mark.parametrize(("quantity", "place"), [("params", 0), ("macs", 1)])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_the_ratio_found_reaches_the_share_and_a_smaller_one_does_not(network, quantity, place, share):
    reached = found(network, f"{quantity}={share}")
    assert reached.share <= share
    assert shares(network, reached.ratio)[place] == pytest.approx(reached.share)
    assert shares(network, round(reached.ratio - 0.001, 3))[place] > share


def test_rounding_and_ratios_by_layer_are_kept(network):
    options = {"by_layer": (("layer1.*", 0.0),), "round_to": 8}
    reached = found(network, "macs=0.7", **options)
    assert shares(network, reached.ratio, **options)[1] == pytest.approx(reached.share)
    assert reached.share <= 0.7


def test_latency_of_a_wide_network_falls_with_its_filters():
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Conv2d(3, 128, 3), nn.ReLU(), nn.Conv2d(128, 128, 3), nn.Flatten(1), nn.LazyLinear(2))
    wide(torch.zeros(1, 3, 8, 8))
    reached = found(DenseNetwork(wide, (3, 8, 8)), "latency=0.7")
    assert 0 < reached.ratio < 0.99
    assert reached.share <= 0.7


def test_what_cannot_be_reached_is_said_with_what_can(network):
    with pytest.raises(UserError, match=r"out of reach: the greatest ratio that empties no layer \(0.937\) leaves 0.0"):
        found(network, "params=0.01")


@pytest.mark.parametrize("text", ["macs", "macs=", "macs=1", "macs=0", "flops=0.5", "=0.5", "macs=nan", "macs=-1"])
def test_what_is_no_target_is_refused(text):
    with pytest.raises(UserError, match=r"as macs=0\.5"):
        parse_target(text)


def test_a_target_is_read():
    assert parse_target("latency=0.6") == Target("latency", 0.6)
