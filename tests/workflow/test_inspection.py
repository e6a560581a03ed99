"""jobs/ice_inspect.py: what it prints, and how wrong input ends."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ice_ray.config.jobs import InspectConfig
from ice_ray.workflow.inspection import inspect_job
from ice_ray.workflow.running import run

ROOT = Path(__file__).parent.parent.parent


def shown(capsys, *arguments: str) -> str:
    assert run(inspect_job, InspectConfig, "ice_inspect.py", arguments) == 0
    return capsys.readouterr().out


def test_units_totals_and_reasons(capsys):
    text = shown(capsys, "--model", "cifar-resnet8", "--ratio", "0.6", "--prune.exclude", "layer1.*")
    rows = [re.findall(r"[\w.,]+", line) for line in text.splitlines() if line.startswith("│")]
    assert rows == [
        ["1", "layer2.0.conv1", "32", "12", "1", "4,608"],
        ["2", "layer3.0.conv1", "64", "25", "1", "18,432"],
    ]
    dense = 432 + 32 + 2 * 2304 + 64 + 4608 + 9216 + 128 + 18432 + 36864 + 256 + 650
    removed = 20 * (9 * 16 + 9 * 32 + 2) + 39 * (9 * 32 + 9 * 64 + 2)
    assert f"parameters: {dense:,} to {dense - removed:,} (x {(dense - removed) / dense:.3f})" in text
    assert "linear: nothing reads its filters: they are the model's outputs" in text
    assert "layer1.0.conv1: left out by prune.include or prune.exclude" in text


def test_a_target_and_the_ratio_it_led_to(capsys):
    text = shown(capsys, "--model", "cifar-resnet20", "--target", "params=0.5", "--prune.round-to", "8")
    assert re.search(r"ratio 0\.\d+ leaves 0\.4\d+ of the parameters", text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--model"),
        (["--model", "cifar-resnet21"], "nearest"),
        (["--model", "torchvision:shufflenet_v2_x0_5"], "cannot be traced"),
        (["--model", "cifar-resnet8", "--ratio", "1"], "inside (0, 1)"),
        (["--model", "cifar-resnet8", "--num-classes", "1"], "at least 2"),
        (["--model", "cifar-resnet8", "--image-size", "2"], "at least 4"),
    ],
)
def test_wrong_input_is_one_line(arguments, said, capsys):
    assert run(inspect_job, InspectConfig, "ice_inspect.py", arguments) == 2
    line = capsys.readouterr().err.strip()
    assert said in line
    assert len(line.splitlines()) == 1


def test_a_model_in_a_file_of_its_own_is_found_from_its_own_working_directory(tmp_path):
    package = tmp_path / "mypkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "mymod.py").write_text(
        "from torch import nn\n"
        "def build(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, num_classes, 3),\n"
        "                         nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    program = [sys.executable, ROOT / "jobs" / "ice_inspect.py", "--model", "mypkg.mymod:build"]
    ended = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "1 pruning step\n" in ended.stdout


def test_a_target_that_guts_layers_is_shown_with_a_warning(tmp_path, monkeypatch, capsys):
    (tmp_path / "wide_head.py").write_text(
        "from torch import nn\n"
        "class Block(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv1, self.conv2 = nn.Conv2d(8, 32, 3, padding=1), nn.Conv2d(32, 8, 3, padding=1)\n"
        "    def forward(self, x):\n"
        "        return x + self.conv2(self.conv1(x).relu())\n"
        "def build(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 1), Block(), nn.Conv2d(8, 32, 3, padding=1), nn.ReLU(),\n"
        "                         nn.Conv2d(32, num_classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    monkeypatch.chdir(tmp_path)
    text = " ".join(shown(capsys, "--model", "wide_head:build", "--target", "macs=0.54").split())
    assert "warning: target macs=0.54 leaves 1.conv1" in text
    assert "of its 32 filters: so few seldom recover; prune.include '*' takes 2 too: then ratio 0." in text
