"""A trace of a network whose layers are counted by hand."""

import torch
from torch import nn

from ice_ray.engine.cost import forward_flops, multiply_adds, training_flops
from ice_ray.models.trace import trace_layers


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
