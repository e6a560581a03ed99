#!/usr/bin/env bash
# torch.optim.Adam(fused=True) on the CPU, with a gradient of another memory format than its parameter.
#
# One would guess: an optimizer pairs the elements of a parameter and its gradient by their indices, whatever their strides,
# as Adam without fused does; or it refuses.
# What happens: it raises nothing and goes through both in the order in which they lie in memory. Where the parameter is
# channels_last and its gradient contiguous, other weights move than those whose gradients are not zero. Autograd gives
# gradients the parameter's layout; those that somebody assigns (summed over processes in one flat tensor and viewed back,
# clipped, read from a file) may have another. Copied into torch.empty_like(parameter), a gradient has it.
#
# Installs into a temporary folder, which goes afterwards.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "torch==2.15.0" "numpy==2.4.6"
"$work/venv/bin/python" - <<'PYTHON'
import torch

with_gradient, moved = [0, 1, 0, 0], {}
for name, memory_format, fused in (
    ("contiguous, fused", torch.contiguous_format, True),
    ("channels_last, not fused", torch.channels_last, False),
    ("channels_last, fused", torch.channels_last, True),
    ("channels_last, fused, gradient in its layout", torch.channels_last, True),
):
    before = torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=memory_format)
    weight = torch.nn.Parameter(before.clone())
    gradient = torch.zeros(2, 3, 2, 2)
    gradient[tuple(with_gradient)] = 1.0
    weight.grad = torch.empty_like(weight).copy_(gradient) if "in its layout" in name else gradient
    torch.optim.Adam([weight], lr=0.1, fused=fused).step()
    (moved[name],) = (weight.detach() != before).nonzero().tolist()
    print(f"{name}: gradient at {with_gradient}, weight moved at {moved[name]}")
print(f"torch {torch.__version__}")
other = {name for name, place in moved.items() if place != with_gradient}
raise SystemExit(0 if other == {"channels_last, fused"} else "the behaviour has changed")
PYTHON
