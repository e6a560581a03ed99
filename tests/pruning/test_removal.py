"""Removing filters for real."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ice_ray.models.registry import ModelSpec
from ice_ray.models.units import PrunableUnit, all_kept, kept_without
from ice_ray.pruning.removal import remove_filters, shrink_to, widths_of

SHAPE = (3, 16, 16)


def resnet() -> nn.Module:
    """A ResNet-20 whose statistics are not those it was born with."""
    model = ModelSpec("cifar-resnet20", 10).build()
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.eval()


def test_filters_that_do_nothing_leave_the_outputs_unchanged():
    """Weights, gamma and beta at zero: the filter's map is zero, so taking it away changes nothing."""
    model, images = resnet(), torch.randn(8, *SHAPE)
    dead = {"layer1.0.conv1": [0, 3, 15], "layer2.1.conv1": list(range(5, 20)), "layer3.2.conv1": [63]}
    for layer, filters in dead.items():
        norm = model.get_submodule(layer.replace("conv", "bn"))
        with torch.no_grad():
            model.get_submodule(layer).weight[filters] = 0
            norm.weight[filters] = 0
            norm.bias[filters] = 0
    before = model(images)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    remove_filters(model, SHAPE, dead)
    torch.testing.assert_close(model(images), before, rtol=1e-5, atol=1e-5)
    assert model.get_submodule("layer1.0.conv1").out_channels == 13
    assert model.get_submodule("layer1.0.conv2").in_channels == 13
    assert model.get_submodule("layer2.1.bn1").num_features == 17
    # 3x3 kernels on both sides of a filter, and gamma and beta
    removed = 3 * (9 * (16 + 16) + 2) + 15 * (9 * (32 + 32) + 2) + 1 * (9 * (64 + 64) + 2)
    assert parameters - sum(parameter.numel() for parameter in model.parameters()) == removed


def test_what_stays_is_what_was_there():
    model = resnet()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    remove_filters(model, SHAPE, {"layer1.1.conv1": [1, 2]})
    kept = [0, *range(3, 16)]
    after = model.state_dict()
    assert torch.equal(after["layer1.1.conv1.weight"], before["layer1.1.conv1.weight"][kept])
    assert torch.equal(after["layer1.1.bn1.running_var"], before["layer1.1.bn1.running_var"][kept])
    assert torch.equal(after["layer1.1.conv2.weight"], before["layer1.1.conv2.weight"][:, kept])
    assert torch.equal(after["layer2.0.conv1.weight"], before["layer2.0.conv1.weight"])


def test_tracing_moves_no_statistics_and_mode_and_gradients_stay():
    model = resnet().train()
    model.get_submodule("layer1.0.conv2").weight.requires_grad_(False)
    mean = model.get_submodule("bn1").running_mean.clone()
    remove_filters(model, SHAPE, {"layer1.0.conv1": [0]})
    assert model.training
    assert torch.equal(model.get_submodule("bn1").running_mean, mean)
    assert not model.get_submodule("layer1.0.conv2").weight.requires_grad
    assert model.get_submodule("layer1.0.conv1").weight.requires_grad


def test_a_depthwise_stage_follows():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    with torch.no_grad():
        for layer in (model[0], model[1]):
            layer.weight[2] = 0
            layer.bias[2] = 0
    images = torch.randn(2, 3, 8, 8)
    before = model(images)
    remove_filters(model, (3, 8, 8), {"0": [2]})
    assert (model[1].groups, model[1].out_channels, model[3].in_channels) == (7, 7, 7)
    torch.testing.assert_close(model(images), before)


def test_a_dense_model_takes_the_shape_of_a_pruned_one(network):
    pruned = network.build(torch.device("cpu"))
    remove_filters(pruned, network.image_shape, {"layer1.0.conv1": [0, 1], "layer3.0.conv1": list(range(40))})
    fresh = network.build_pruned(widths_of(pruned, network.steps), torch.device("cpu"))
    fresh.load_state_dict(pruned.state_dict())
    images = torch.randn(4, *network.image_shape)
    assert torch.equal(fresh.eval()(images), pruned.eval()(images))


def test_a_dense_model_keeps_the_filters_that_are_named(network):
    """Without loading anything it is the pruned model itself."""
    removed = {"layer1.0.conv1": [0, 7], "layer3.0.conv1": list(range(3, 43))}
    pruned = network.build(torch.device("cpu"))
    remove_filters(pruned, network.image_shape, removed)
    kept = kept_without(network.units, all_kept(network.units), removed)
    fresh = network.build_pruned(kept, torch.device("cpu")).state_dict()
    assert fresh.keys() == pruned.state_dict().keys()
    assert all(torch.equal(fresh[name], value) for name, value in pruned.state_dict().items())


@given(st.data())
def test_what_is_kept_after_several_removals_is_what_each_left_of_the_one_before(drawn):
    """Oracle: a list from which items are deleted."""
    unit = PrunableUnit("root", drawn.draw(st.integers(1, 12)), ("reader",), gates=("gate",))
    own, kept = list(range(unit.filters)), all_kept([unit])
    for _ in range(3):
        removed = drawn.draw(st.sets(st.integers(0, max(0, len(own) - 1)), max_size=len(own)))
        kept = kept_without([unit], kept, {"root": sorted(removed)})
        for index in sorted(removed, reverse=True):
            if own:
                del own[index]
    assert kept == {"root": tuple(own), "gate": tuple(own)}


def test_layers_that_are_coupled_keep_what_goes_with_nothing_that_has_gone():
    """By hand: an option-A stage of 4 in the middle of one of 8, and a layer of which each half goes with another."""
    wide = PrunableUnit("wide", 8, ("reader",), coupled=(("narrow", (2, 3, 4, 5)), ("halves", (0, 1, -1, -1))))
    other = PrunableUnit("other", 2, ("reader",), coupled=(("halves", (-1, -1, 0, 1)),))
    kept = kept_without([wide, other], all_kept([wide, other]), {"wide": [0, 3, 7], "other": [1]})
    assert kept == {"wide": (1, 2, 4, 5, 6), "narrow": (0, 2, 3), "other": (0,), "halves": (1, 2)}
    again = kept_without([wide, other], kept, {"wide": [0, 1]})
    assert again == {"wide": (4, 5, 6), "narrow": (2, 3), "other": (0,), "halves": (2,)}


@pytest.mark.parametrize("kept", [(), (1, 0), (0, 0), (15, 16), (-1, 3)])
def test_filters_that_no_removal_leaves_are_refused(kept):
    with pytest.raises(ValueError, match="cannot have"):
        shrink_to(resnet(), SHAPE, {"layer1.0.conv1": kept})


@pytest.mark.parametrize("widths", [{"layer9.conv1": 3}, {"layer1.0.conv1": 0}, {"layer1.0.conv1": 17}, {"linear": 3}])
def test_widths_that_no_removal_leads_to_are_refused(widths):
    with pytest.raises(ValueError, match="cannot have"):
        shrink_to(resnet(), SHAPE, widths)
