"""Removing filters for real."""

import pytest
import torch
from torch import nn

from ice_ray.models.registry import ModelSpec
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


@pytest.mark.parametrize("widths", [{"layer9.conv1": 3}, {"layer1.0.conv1": 0}, {"layer1.0.conv1": 17}, {"linear": 3}])
def test_widths_that_no_removal_leads_to_are_refused(widths):
    with pytest.raises(ValueError, match="cannot have"):
        shrink_to(resnet(), SHAPE, widths)
