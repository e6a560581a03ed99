"""A trace of a network whose layers are counted by hand."""

import torch
import torchvision
from torch import nn

from ice_ray.engine.work import forward_flops, multiply_adds, training_flops
from ice_ray.models.registry import ModelSpec
from ice_ray.models.trace import trace_layers, upstream_parameters


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),  # 8x8 positions, 3*4*9 weights
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),  # 4x4 positions
        nn.Flatten(),
        nn.Linear(96, 5),
    )


def test_order_positions_and_norms():
    traces = trace_layers(small(), (3, 8, 8))
    assert [(t.name, t.positions, t.norm) for t in traces] == [("0", 64, "1"), ("3", 16, None), ("5", 1, None)]


def test_operations_by_hand_with_and_without_frozen_layers():
    model = small()
    traces = trace_layers(model, (3, 8, 8))
    first, second, third = 64 * 3 * 4 * 9, 16 * 4 * 6 * 9, 96 * 5
    assert [multiply_adds(model, trace) for trace in traces] == [first, second, third]
    assert forward_flops(model, traces) == 2 * (first + second + third)
    # backward: every weight's gradient, and every input's but the image's
    assert training_flops(model, traces) == 2 * (2 * first + 3 * second + 3 * third)
    model[3].weight.requires_grad_(False)
    assert training_flops(model, traces) == 2 * (2 * first + 2 * second + 3 * third)


def test_tracing_leaves_mode_and_statistics_alone():
    model = small().train()
    mean = model[1].running_mean.clone()
    trace_layers(model, (3, 8, 8))
    assert model.training
    assert torch.equal(model[1].running_mean, mean)


def test_what_lies_above_a_layer():
    model = ModelSpec("cifar-resnet8", 10).build()
    assert upstream_parameters(model, "conv1", (3, 32, 32)) == ()
    assert set(upstream_parameters(model, "layer1.0.conv1", (3, 32, 32))) == {"conv1.weight", "bn1.weight", "bn1.bias"}
    whole = set(upstream_parameters(model, "layer2.0.conv1", (3, 32, 32)))
    assert whole == {name for name, _ in model.named_parameters() if name.startswith(("conv1", "bn1", "layer1"))}


def test_every_norm_of_a_densenet_belongs_to_the_layer_before_it():
    """Its norms read concatenations, too, which live only as long as they are read."""
    for trace in trace_layers(torchvision.models.densenet121(), (3, 64, 64)):
        if trace.name.endswith("conv1"):
            assert trace.norm == trace.name.replace("conv1", "norm2")
        else:
            assert trace.norm == ("features.norm0" if trace.name == "features.conv0" else None)
