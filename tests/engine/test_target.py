"""--target: the least ratio that leaves no more than the share asked for."""

import pytest
import torch
from torch import nn

from ice_ray.engine.config import Target, parse_rung, parse_target
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.target import macs, objection_to, ratio_for, small_part
from ice_ray.errors import UserError
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.selection import Selection

CPU = torch.device("cpu")


def found(network: DenseNetwork, target: str, **amounts):
    return ratio_for(parse_rung(target, "a test"), network, Amounts(0.5, **amounts), CPU, "fp32")


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
    assert parse_target("latency=0.6") == ((Target("latency", 0.6),),)
    assert parse_target("macs=0.5 params=0.7") == ((Target("macs", 0.5), Target("params", 0.7)),)


def test_a_quantity_is_given_once():
    with pytest.raises(UserError, match="names a quantity twice"):
        parse_target("macs=0.5 macs=0.6")


def test_of_several_targets_all_are_reached(network):
    reached = found(network, "macs=0.5 params=0.7")
    params, multiply_adds = shares(network, reached.ratio)
    assert dict(reached.shares) == {"macs": pytest.approx(multiply_adds), "params": pytest.approx(params)}
    assert multiply_adds <= 0.5 and params <= 0.7
    params, multiply_adds = shares(network, round(reached.ratio - 0.001, 3))
    assert multiply_adds > 0.5 or params > 0.7


class Gate(nn.Module):
    """Of which the hidden units of the gate alone are to go."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.squeeze, self.excite, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.stem(x)
        gate = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return self.head((x + self.conv(x) * gate[:, :, None, None]).mean((2, 3)))


def test_prunable_layers_that_hold_next_to_nothing_are_told_of(network):
    told = small_part(DenseNetwork(Gate(), (3, 8, 8), Selection(include=("squeeze",))))
    whole = 9 * 64 * (3 * 8 + 8 * 8) + 2 * 8 * 16 + 8 * 2
    assert told is not None
    assert f"{1 - 15 * 16 / whole:.3f} of the multiply-adds would be left" in told
    assert small_part(network) is None


class Narrow(nn.Module):
    """Two small blocks, and a wide transition between them that holds most of the work."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Small(8), Small(16)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.widen, self.narrow, self.head = nn.Conv2d(8, 64, 3, padding=1), nn.Conv2d(64, 16, 3), nn.Linear(16, 2)

    def forward(self, x):
        x = self.narrow(self.widen(self.first(self.stem(x).relu())).relu()).relu()
        return self.head(self.second(x).mean((2, 3)))


class Small(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, 32, 3, padding=1), nn.Conv2d(32, channels, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(self.conv1(x).relu())


def narrow(freeze: str = "", **patterns) -> DenseNetwork:
    torch.manual_seed(0)
    model = Narrow()
    if freeze:
        model.get_submodule(freeze).requires_grad_(False)
    return DenseNetwork(model, (3, 8, 8), Selection(**patterns))


# Multiply-adds by hand, of 8x8 positions but behind the narrowing, of 6x6:
# the blocks' 9 x 32 x 2 x (8 x 64 + 16 x 36), the transition's 9 x 64 x (8 x 64 + 16 x 36), stem and head's
# 3 x 8 x 9 x 64 + 32.
BLOCKS, TRANSITION, REST = 576 * 1088, 576 * 1088, 13_856
DENSE = BLOCKS + TRANSITION + REST


def test_what_is_out_of_reach_names_what_would_bring_it_within():
    smallest = (BLOCKS / 32 + TRANSITION + REST) / DENSE
    included = (BLOCKS + TRANSITION) / DENSE
    with pytest.raises(UserError) as refusal:
        found(narrow(), "macs=0.4")
    assert str(refusal.value).startswith(
        f"target macs=0.4 is out of reach: the greatest ratio that empties no layer (0.968) leaves {smallest:.3f}; "
        "prune.include '*' takes widen too: then ratio 0."
    )
    asked = found(narrow(include=("*",)), "macs=0.4")
    assert f"ratio {asked.ratio:g} leaves {asked.share:.3f}" in str(refusal.value)
    assert asked.ratio == pytest.approx(1 - (0.4 - REST / DENSE) / included, abs=0.04)


def test_what_stays_out_of_reach_is_said_with_the_smallest_share_of_all():
    with pytest.raises(
        UserError, match=r"takes widen too: then the greatest ratio \(0.968\) leaves 0.0\d+; prune.coupled=True"
    ):
        found(narrow(), "macs=0.001")


def test_what_is_excluded_or_frozen_is_not_proposed():
    with pytest.raises(UserError, match=r"out of reach.*; prune.coupled=True takes narrow") as refusal:
        found(narrow(freeze="widen"), "macs=0.2")
    assert "widen" not in str(refusal.value)
    with pytest.raises(UserError, match="no other layer can be pruned"):
        found(narrow(exclude=("widen", "stem", "narrow"), include=("*",), coupled=True, heads=True), "macs=0.1")
    with pytest.raises(UserError, match=r"prune.include 'second\.\*' 'widen' takes widen too: then"):
        found(narrow(freeze="first.conv1"), "macs=0.2")
    with pytest.raises(UserError, match=r"prune.include '\*' takes first.conv1, widen too"):
        found(narrow(include=("second.*",)), "macs=0.02")


def objection(network: DenseNetwork, target: str) -> str | None:
    wanted = parse_rung(target, "a test")
    ratio = ratio_for(wanted, network, Amounts(0.5), CPU, "fp32")
    return objection_to(ratio, wanted, network, Amounts(0.5), CPU, "fp32")


def test_a_target_that_guts_layers_is_said_with_widths_and_mend():
    """53% of the multiply-adds are left where the blocks keep two filters of 32 each."""
    said = objection(narrow(), "macs=0.54")
    assert said is not None
    assert said.startswith(
        "target macs=0.54 leaves first.conv1 2 of its 32 filters, second.conv1 2 of its 32 filters: so few seldom "
        "recover; prune.include '*' takes widen too: then ratio 0.4"
    )
    assert objection(narrow(include=("*",)), "macs=0.54") is None
    assert objection(narrow(), "macs=0.6") is None
    assert "widen" not in (objection(narrow(freeze="widen"), "macs=0.54") or "widen")


def test_coupled_channels_and_heads_are_proposed_with_what_they_bring():
    model = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.Flatten(2), Tokens())
    own = DenseNetwork(model, (3, 16, 16))
    with pytest.raises(UserError, match=r"prune.heads=True takes 2.attention too: then ratio 0.\d+ leaves 0.5\d+"):
        found(own, "macs=0.6")
    followed = nn.Sequential(model[0], model[1], Tokens(with_weights=True))
    with pytest.raises(
        UserError, match=r"prune.coupled=True and prune.heads=True takes 2.attention, 0 too: then ratio 0.\d"
    ):
        found(DenseNetwork(followed, (3, 16, 16)), "macs=0.6")
    larger = found(DenseNetwork(model, (3, 16, 16), Selection(heads=True)), "macs=0.6")
    assert larger.share <= 0.6


class Tokens(nn.Module):
    """A block of a transformer, whose attention holds most of the work, on 16 positions of 16 channels."""

    def __init__(self, with_weights: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16, elementwise_affine=with_weights)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.up, self.down, self.head = nn.Linear(16, 8), nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x):
        x = x.mT
        read = self.norm(x)
        x = x + self.attention(read, read, read, need_weights=False)[0]
        x = x + self.down(self.up(x).relu())
        return self.head(x.mean(1))
