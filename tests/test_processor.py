"""What the processor says of itself, and that torch survives it."""

import os
import platform
import subprocess
import sys

import pytest

from ice_ray import processor

CAP = "ONEDNN_MAX_CPU_ISA"
on_intel_s_kind = pytest.mark.skipif(platform.machine() != "x86_64", reason="the instruction is of x86-64 processors")


@on_intel_s_kind
def test_the_processor_answers_as_its_own_first_leaf_says():
    highest = processor.cpuid(0)
    assert highest is not None and highest >= 7
    assert processor.cpuid(1) != processor.cpuid(0)  # family and model, another answer


@pytest.mark.parametrize(
    ("announced", "palettes", "before", "after"),
    [
        (True, 0, None, "AVX512_CORE_FP16"),
        (True, 1, None, None),
        (True, None, None, None),  # no code of its own: nothing is known, nothing is changed
        (False, 0, None, None),
        (True, 0, "AVX2", "AVX2"),  # the user's own word stays
    ],
)
def test_only_tiles_without_a_shape_are_avoided(announced, palettes, before, after, monkeypatch):
    monkeypatch.setattr(processor, "announces_tiles", lambda: announced)
    monkeypatch.setattr(processor, "cpuid", lambda leaf: palettes)
    monkeypatch.setenv(CAP, before or "")
    if before is None:
        monkeypatch.delenv(CAP)
    processor.avoid_unusable_tiles()
    assert os.environ.get(CAP) == after


def test_products_of_bfloat16_survive_on_this_machine():
    program = (
        "import ice_ray, torch; "
        "a = torch.ones(128, 64, dtype=torch.bfloat16); b = torch.ones(10, 64, dtype=torch.bfloat16); "
        "print(torch.nn.functional.linear(a, b).sum().item())"
    )
    clean = {name: value for name, value in os.environ.items() if name != CAP}
    ended = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.returncode
    assert float(ended.stdout) == 128 * 10 * 64
