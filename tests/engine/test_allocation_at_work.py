"""Curves of what widths cost, on a trained network and real digits, and what is allocated by them."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from pruning.test_heads import Attention
from torch import nn

from ice_ray.data.images import ImageSet
from ice_ray.engine.allocation import allocation_for
from ice_ray.engine.config import parse_rung, parse_target
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.target import macs, objection_to
from ice_ray.engine.width_losses import width_losses
from ice_ray.errors import UserError
from ice_ray.models.copies import copied
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.selection import Selection

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def losses(network, data):
    return width_losses(network, data, 0, CPU)


def found(network, data, target, **amounts):
    return allocation_for(parse_target(target), network, Amounts(0.5, **amounts), data, 0, CPU, "fp32")


def test_every_width_has_a_loss_that_grows_as_filters_go(network, losses):
    assert [curve.unit for curve in losses.curves] == list(network.units)
    for curve in losses.curves:
        assert curve.widths == list(range(1, curve.unit.filters + 1))
        by_width = [curve.losses[width] for width in curve.widths]
        assert by_width == sorted(by_width, reverse=True)
        assert by_width[-1] == 0 < by_width[0]
    assert losses.cost.wall_seconds > 0 < losses.cost.flops


def test_the_same_seed_gives_the_same_bits_and_labels_are_not_looked_at(network, data, losses):
    mixed = ImageSet(data.train.images, data.train.labels.flip(0))
    again = width_losses(network, dataclasses.replace(data, train=mixed), 0, CPU)
    assert again.curves == losses.curves


def test_filters_that_do_nothing_cost_nothing_and_are_the_first_to_go(trained, data):
    model = copied(trained)
    block = model.get_submodule("layer2.0")
    with torch.no_grad():  # half of the filters give zero whatever they read
        for tensor in (block.conv1.weight, block.bn1.weight, block.bn1.bias):
            tensor[: len(tensor) // 2] = 0
    network = DenseNetwork(model, (3, 8, 8))
    (curve,) = (each for each in width_losses(network, data, 0, CPU).curves if each.unit.layer == "layer2.0.conv1")
    half = curve.unit.filters // 2
    assert curve.losses[half] < 1e-6 < curve.losses[half - 2]
    widths = dict(found(network, data, "macs=0.75").widths)
    assert widths["layer2.0.conv1"] <= half


def test_a_loss_is_near_what_the_pruned_network_really_loses(network, data, losses):
    """Of the layer alone, its reader refitted by hand: torch's own least squares on the same images."""
    curve = losses.curves[-1]
    width = min(curve.widths, key=lambda each: abs(each - curve.unit.filters / 2))
    images = data.train.images[:256].permute(0, 3, 1, 2).float() / 255
    images = (images - torch.tensor(data.preprocessing.mean).view(1, 3, 1, 1)) / torch.tensor(
        data.preprocessing.std
    ).view(1, 3, 1, 1)
    dense = network.build(CPU)
    weights = dense.get_parameter(f"{curve.unit.layer}.weight").detach().flatten(1).abs().sum(1)
    pruned = network.build(CPU)
    gone = weights.argsort()[: curve.unit.filters - width]
    (reader,) = curve.unit.consumers
    with torch.no_grad():
        pruned.get_parameter(f"{reader}.weight")[:, gone] = 0
        divergence = F.kl_div(
            pruned(images).log_softmax(1), dense(images).log_softmax(1), reduction="batchmean", log_target=True
        )
    # Unrefitted removal by L1 norm loses more than the curve says, but not of another order.
    assert 0 < curve.losses[width] <= float(divergence) < 1000 * curve.losses[width]


@pytest.mark.parametrize("target", ["macs=0.5", "params=0.4", "macs=0.6 params=0.5"])
def test_targets_are_reached_with_less_expected_loss_than_at_one_ratio(network, data, target):
    reached = found(network, data, target)
    kept = dict(reached.widths)
    model = network.build_pruned(kept, CPU)
    dense = network.build(CPU)
    really = {
        "macs": macs(network, model) / macs(network, dense),
        "params": network.unpruned_share(model, "parameters"),
    }
    for asked in parse_rung(target, "a test"):
        assert really[asked.quantity] <= asked.share
        assert dict(reached.shares)[asked.quantity] == pytest.approx(really[asked.quantity])
    assert reached.loss < reached.uniform_loss
    assert reached.ratio == pytest.approx(
        1 - sum(kept.values()) / sum(unit.filters for unit in network.units), abs=1e-3
    )


def test_a_measured_latency_is_reached(network, data):
    reached = found(network, data, "latency=0.9")
    assert reached.widths
    assert reached.share <= 0.9


def test_rounding_and_ratios_by_layer_are_kept(network, data):
    first, *rest = network.units
    kept = dict(found(network, data, "macs=0.7", round_to=4, by_layer=((first.layer, 0.0),)).widths)
    assert kept[first.layer] == first.filters
    assert all(kept[unit.layer] % 4 == 0 for unit in rest)


def test_only_a_target_that_needs_it_takes_more_than_seven_eighths_of_a_layer(network, data):
    mild, harsh = found(network, data, "macs=0.3"), found(network, data, "macs=0.12")
    eighth = {unit.layer: unit.filters / 8 for unit in network.units}
    assert all(width >= eighth[layer] for layer, width in mild.widths)
    assert any(width < eighth[layer] for layer, width in harsh.widths)
    told = objection_to(harsh, parse_rung("macs=0.12", "a test"), network, Amounts(0.5), CPU, "fp32")
    assert told is not None and "so few seldom recover" in told
    assert objection_to(mild, parse_rung("macs=0.3", "a test"), network, Amounts(0.5), CPU, "fp32") is None


def test_what_is_out_of_reach_is_said(network, data):
    with pytest.raises(UserError, match=r"target macs=0\.01 is out of reach"):
        found(network, data, "macs=0.01")


class Scaled(nn.Linear):
    """A layer with a forward pass of its own, which nothing refits."""

    def forward(self, x):
        return 2 * super().forward(x)


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.attention, self.head = nn.Conv2d(3, 24, 2, 2), Attention(), nn.Linear(24, 10)
        self.attention.projection = Scaled(24, 24)

    def forward(self, x):
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        return self.head((tokens + self.attention(tokens)).mean(dim=1))


def test_heads_whose_reader_cannot_be_refitted_have_a_curve_by_the_weights_of_their_layers(data):
    torch.manual_seed(0)
    model = Attending()
    with torch.no_grad():  # the second head gives nothing
        for layer, rows in ((model.attention.queries, range(8, 16)), (model.attention.keys_values, range(8, 16))):
            layer.weight[list(rows)] = layer.bias[list(rows)] = 0
        model.attention.keys_values.weight[32:40] = model.attention.keys_values.bias[32:40] = 0
    network = DenseNetwork(model, (3, 8, 8), Selection(heads=True))
    (curve,) = (each for each in width_losses(network, data, 0, CPU).curves if each.unit.heads)
    assert curve.losses[3] == 0
    assert curve.losses[2] < 1e-9 < curve.losses[1]
