#!/usr/bin/env bash
# The first optimizer that a process makes of torch.optim.
#
# One would guess: it makes a few tensors at most, in no time. torch.compile is loaded by those who call it.
# What happens: the constructor of every optimizer, plain SGD too, imports torch's compiler (torch._dynamo and what that
# needs): hundreds of modules, about a second of the processor's, and well above 100 MiB that stay with the process. In a
# cluster that is once for each worker; a job of many small ones waits for it, and its memory is planned without it. The
# functions behind the classes (torch.optim.adam.adam) do without.
#
# Installs into a temporary folder, which goes afterwards.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "torch==2.15.0" "numpy==2.4.6"
cat > "$work/made.py" <<'PYTHON'
import resource
import sys
import time

import torch
from torch.optim.adam import adam


def memory() -> float:
    """The most that the process has held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


weight, grad = torch.ones(3), torch.full((3,), 0.5)
before, held, begun = set(sys.modules), memory(), time.process_time()
if sys.argv[1] == "the class":
    weight.requires_grad_().grad = grad
    torch.optim.Adam([weight], lr=0.1).step()
else:
    states = [torch.zeros(3)], [torch.zeros(3)], [], [torch.tensor(0.0)]
    options = {"amsgrad": False, "beta1": 0.9, "beta2": 0.999, "lr": 0.1, "weight_decay": 0, "eps": 1e-8}
    adam([weight], [grad], *states, **options, maximize=False)
loaded = set(sys.modules) - before
print(
    f"{sys.argv[1]}: {weight.tolist()} after a step, {len(loaded)} more modules, {memory() - held:.0f} MiB,"
    f" {time.process_time() - begun:.2f} processor s (torch {torch.__version__})"
)
raise SystemExit(0 if ("torch._dynamo" in loaded) == (sys.argv[1] == "the class") else "the behaviour has changed")
PYTHON
"$work/venv/bin/python" "$work/made.py" "the class"
"$work/venv/bin/python" "$work/made.py" "the function"
