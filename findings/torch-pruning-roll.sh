#!/usr/bin/env bash
# A roll over channels in Torch-Pruning.
#
# One would guess: where torch.roll(x, 1, dims=1) lies between two convolutions, filter 2 of the first is read as input
# channel 3 of the second, so the dependency graph removes filter 2 together with input channel 3; or it refuses, as the
# order of channels is not its to follow.
# What happens: it takes the roll for an element-wise operation and removes input channel 2, which reads filter 1. From there
# on the weights of the second convolution meet other channels than theirs. Nothing is raised, and check_pruning_group says
# True. The example gives input channel 3 weights of zero beforehand: without filter 2 the answers must be the same.
#
# Installs into a temporary folder, which goes afterwards; with uv, whose cache keeps torch (5 GB) for the next time.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "uv==0.13.9"
"$work/venv/bin/uv" pip install -q --python "$work/venv/bin/python" "torch==2.15.0" "torch-pruning==1.6.1" "numpy==2.4.6"
TMPDIR=$work "$work/venv/bin/python" - <<'PYTHON'
import warnings
from importlib.metadata import version

import torch
import torch_pruning
from torch import nn


class Net(nn.Module):
    def __init__(self, shift):
        super().__init__()
        self.shift = shift
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3)

    def forward(self, x):
        return self.second(torch.roll(self.first(x).relu(), self.shift, dims=1))


@torch.no_grad()
def silenced(shift):
    torch.manual_seed(0)
    net = Net(shift).eval()
    net.second.weight[:, 2 + shift] = 0  # what reads filter 2
    return net


def without_filter_2(shift):
    net = silenced(shift)
    graph = torch_pruning.DependencyGraph().build_dependency(net, example_inputs=images)
    group = graph.get_pruning_group(net.first, torch_pruning.prune_conv_out_channels, idxs=[2])
    checked = graph.check_pruning_group(group)
    removed = [indices for dependency, indices in group if dependency.target.module is net.second]
    group.prune()
    return net, removed, checked


def by_hand(shift):
    net = silenced(shift)
    torch_pruning.prune_conv_out_channels(net.first, [2])
    torch_pruning.prune_conv_in_channels(net.second, [2 + shift])
    return net


@torch.no_grad()
def change(net, shift):
    return (net(images) - silenced(shift)(images)).abs().max().item()


images = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))
straight, removed_straight, _ = without_filter_2(0)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    rolled, removed_rolled, checked = without_filter_2(1)
said = [str(each.message) for each in caught]
changes = [change(straight, 0), change(rolled, 1), change(by_hand(1), 1)]
largest = silenced(1)(images).abs().max().item()
print(f"torch-pruning {version('torch-pruning')}, torch {torch.__version__}")
print(f"input channels removed: {removed_straight} without a roll, {removed_rolled} with one")
print(f"check_pruning_group: {checked}; warnings: {said}")
print(
    f"answers (at most {largest:.3f}) change by {changes[0]:.1g} without a roll, by {changes[1]:.3f} with one, "
    f"by {changes[2]:.1g} where input channel 3 is removed by hand"
)
as_found = removed_rolled == removed_straight == [[2]] and checked and not said
as_found = as_found and changes[0] < 1e-5 and changes[2] < 1e-5 and changes[1] > 0.05
raise SystemExit(0 if as_found else "the behaviour has changed")
PYTHON
