#!/usr/bin/env bash
# PyTorch on the CPU, with activations of more than 32 MiB a layer.
#
# One would guess: memory that a tensor has freed serves the next one, as on a GPU, so a second pass of a network asks the
# kernel for next to nothing; and a batch twice as large takes at most twice as long.
# What happens: torch has no allocator of its own on the CPU. glibc's maps every block above 32 MiB (the highest that
# its threshold comes to by itself) by itself and unmaps it when it is freed, so every pass has every page of every
# layer cleared by the kernel anew, more than once where layouts change between; on a virtual machine that can take
# longer than the convolutions. Of smaller blocks a part is given back, where they lie at the end of the heap.
# GLIBC_TUNABLES (or mallopt) that forbid maps of single blocks end it; what is computed stays the same.
#
# Installs into a temporary folder, which goes afterwards.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "torch==2.15.0" "numpy==2.4.6"
cat > "$work/passes.py" <<'PYTHON'
import json
import resource
import sys

import torch

torch.set_num_threads(1)
torch.manual_seed(0)
layers = [torch.nn.Conv2d(3, 32, 1), *(torch.nn.Conv2d(32, 32, 1) for _ in range(7))]
network = torch.nn.Sequential(*layers).eval()
images = torch.randn(int(sys.argv[1]), 3, 64, 64)
with torch.inference_mode():
    for _ in range(3):
        answer = network(images)
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(5):
        answer = network(images)
    after = resource.getrusage(resource.RUSAGE_SELF)
cleared = (after.ru_minflt - before.ru_minflt) * resource.getpagesize() / 5 / answer.nbytes
seconds = [(getattr(after, name) - getattr(before, name)) / 5 for name in ("ru_utime", "ru_stime")]
print(json.dumps([answer.nbytes / 2**20, cleared, *seconds, answer.double().sum().item()]))
PYTHON
tuned=glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647
for images in 32 128; do
  for tunables in "" "$tuned"; do
    GLIBC_TUNABLES=$tunables "$work/venv/bin/python" "$work/passes.py" "$images" >> "$work/said"
  done
done
"$work/venv/bin/python" - "$work/said" <<'PYTHON'
import json
import platform
import sys
from pathlib import Path

import torch

small, small_tuned, large, large_tuned = map(json.loads, Path(sys.argv[1]).read_text().splitlines())
for name, row in (("default", small), ("tuned", small_tuned), ("default", large), ("tuned", large_tuned)):
    size, cleared, user, system, _ = row
    print(f"{size:.0f} MiB a layer, {name}: cleared by the kernel in a pass of 8 layers, in layers: {cleared:.1f};"
          f" user {user:.2f} s, system {system:.2f} s")
print(f"torch {torch.__version__}, {' '.join(platform.libc_ver())}")
same = small[-1] == small_tuned[-1] and large[-1] == large_tuned[-1]
as_told = large[1] > 16 and max(small_tuned[1], large_tuned[1]) < 1
raise SystemExit(0 if same and as_told else "the behaviour has changed")
PYTHON
