#!/usr/bin/env bash
# A higher pruning ratio that removes less, in Torch-Pruning's global pruning.
#
# One would guess: with global_pruning=True the filters of the least importance go, whichever layer they are in, so that more
# go with a higher pruning_ratio; where all filters of a layer are among them, a few of it stay, and with
# max_pruning_ratio=0.5 ("maximum pruning ratio. useful if over-pruning happens") at least half of it.
# What happens: a layer of which every filter is below the threshold is left whole. Nothing is raised, warned of or returned.
# Below, one of two layers has small weights: of its 16 filters one is left at 0.45, and all 16 are at 0.5, where nothing at all
# has been removed. In one step max_pruning_ratio changes nothing: it is compared with what a layer has lost in steps before.
# Whoever searches for the ratio of a target by bisection meets both. Small steps (iterative_steps) end with one filter.
# Reported upstream: VainF/Torch-Pruning issues 417 and 448, both open.
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


def filters_left(ratio, most, steps=1):
    torch.manual_seed(0)
    strong, weak, head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 10, 3)
    net = nn.Sequential(strong, nn.ReLU(), weak, nn.ReLU(), head).eval()
    with torch.no_grad():
        weak.weight.mul_(0.01)
    pruner = torch_pruning.pruner.BasePruner(
        net,
        torch.zeros(1, 3, 16, 16),
        importance=torch_pruning.importance.MagnitudeImportance(p=2, group_reduction="first", normalizer=None),
        global_pruning=True,
        pruning_ratio=ratio,
        max_pruning_ratio=most,
        iterative_steps=steps,
        ignored_layers=[head],
    )
    for _ in range(steps):
        pruner.step()
    return strong.out_channels, weak.out_channels


found = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for most in (1.0, 0.5):
        for ratio in (0.25, 0.4, 0.45, 0.5, 0.6):
            found[most, ratio] = filters_left(ratio, most)
            print(f"max_pruning_ratio {most}, pruning_ratio {ratio}: {found[most, ratio]} of (16, 16) filters are left")
    slowly = filters_left(0.6, 1.0, steps=40)
print(f"max_pruning_ratio 1.0, pruning_ratio 0.6 in 40 steps: {slowly}; warnings: {[str(each.message) for each in caught]}")
print(f"torch-pruning {version('torch-pruning')}, torch {torch.__version__}")
as_found = all(found[most, 0.45] == (16, 1) and found[most, 0.5] == (16, 16) for most in (1.0, 0.5))
as_found = as_found and slowly[1] == 1 and not caught
raise SystemExit(0 if as_found else "the behaviour has changed")
PYTHON
