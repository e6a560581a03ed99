"""jobs/ice_inspect.py: what it prints, and how wrong input ends."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from safetensors.torch import save_file

from ice_ray.config.command_line import parse
from ice_ray.config.jobs import InspectConfig
from ice_ray.config.run import RunConfig
from ice_ray.models.registry import ModelSpec
from ice_ray.workflow.inspection import inspect_job
from ice_ray.workflow.plan import make_plan
from ice_ray.workflow.running import run

ROOT = Path(__file__).parent.parent.parent


def shown(capsys, *arguments: str) -> str:
    assert run(inspect_job, InspectConfig, "ice_inspect.py", arguments) == 0
    return capsys.readouterr().out


def test_units_totals_and_reasons(capsys):
    text = shown(capsys, "--model", "cifar-resnet8", "--ratio", "0.6", "--prune.exclude", "layer1.*")
    rows = [re.findall(r"[\w.,]+", line) for line in text.splitlines() if line.startswith("│")]
    assert rows == [
        ["1", "layer2.0.conv1", "32", "12", "38", "4,608"],
        ["2", "layer3.0.conv1", "64", "25", "39", "18,432"],
    ]
    dense = 432 + 32 + 2 * 2304 + 64 + 4608 + 9216 + 128 + 18432 + 36864 + 256 + 650
    removed = 20 * (9 * 16 + 9 * 32 + 2) + 39 * (9 * 32 + 9 * 64 + 2)
    assert f"parameters: {dense:,} to {dense - removed:,} (x {(dense - removed) / dense:.3f})" in text
    assert "linear: nothing reads its filters: they are the model's outputs" in text
    assert "layer1.0.conv1: left out by prune.include or prune.exclude" in text


def test_a_target_and_the_ratio_it_led_to(capsys):
    text = shown(capsys, "--model", "cifar-resnet20", "--target", "params=0.5", "--prune.round-to", "8")
    assert re.search(r"ratio 0\.\d+ leaves 0\.4\d+ of the parameters", text)
    assert "without images one ratio holds for all layers; --data and --weights would show" in text


@pytest.fixture
def weights(tmp_path) -> str:
    path = tmp_path / "weights.safetensors"
    save_file(ModelSpec("cifar-resnet8", 10).build().state_dict(), path)
    return str(path)


def test_with_images_it_shows_the_plan_of_a_run_with_the_same_options(weights, capsys):
    asked = [
        "--model",
        "cifar-resnet8",
        "--weights",
        weights,
        "--data",
        "digits",
        "--target",
        "macs=0.6",
        "--seed",
        "3",
    ]
    text = shown(capsys, *asked)
    found = make_plan(parse(RunConfig, asked, "ice-ray prune")).found
    rows = [re.findall(r"[\w.,%]+", line) for line in text.splitlines() if line.startswith("│")]
    widths, losses = dict(found.widths), dict(found.losses)
    assert [(row[1], row[3], row[6]) for row in rows] == [
        (layer, f"{width}", f"{losses[layer]:.3g}") for layer, width in widths.items()
    ]
    assert [row[4] for row in rows] == [f"{int(row[3]) / int(row[2]):.0%}" for row in rows]
    assert re.search(
        rf"a width for each of 3 layers, found in [\d.]+ s, leaves {found.share:.3f} of the multiply-adds; expected "
        rf"loss {found.loss:.3g} nats, at one ratio for all layers {found.uniform_loss:.3g}\n",
        text,
    )
    assert "without images" not in text


def test_images_say_how_large_they_are_and_how_many_classes_there_are(capsys):
    text = shown(capsys, "--model", "cifar-resnet8", "--data", "digits", "--ratio", "0.5")
    other = shown(capsys, "--model", "cifar-resnet8", "--image-size", "8", "--ratio", "0.5")
    counts = [line for line in text.splitlines() if line.startswith(("parameters", "multiply-adds"))]
    assert len(counts) == 2
    assert all(line in other for line in counts)


def on_terminal(command: list[str], columns: int) -> list[str]:
    """The lines that a pseudo-terminal of so many columns shows of what a command prints at its end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "", "LINES": ""}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
            while more := os.read(ours, 1 << 16):
                shown += more
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    return [line.rstrip("\r").rpartition("\r")[2] for line in plain.split("\n")]


@pytest.mark.parametrize("columns", [80, 120])
def test_the_plan_fits_a_terminal(columns, weights):
    words = ["--model", "cifar-resnet8", "--weights", weights, "--data", "digits", "--target", "macs=0.6"]
    lines = on_terminal([sys.executable, "-m", "ice_ray", "inspect", *words], columns)
    assert max(map(len, lines)) <= columns
    rows = [line for line in lines if re.match(r"│ +\d", line)]
    assert [re.findall(r"[\w.,%]+", line)[1] for line in rows] == [f"layer{n}.0.conv1" for n in (1, 2, 3)]
    assert all(len(re.findall(r"[\w.,%]+", line)) == 7 for line in rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--model"),
        (["--model", "cifar-resnet21"], "nearest"),
        (["--model", "torchvision:shufflenet_v2_x0_5"], "cannot be traced"),
        (["--model", "cifar-resnet8", "--ratio", "1"], "inside (0, 1)"),
        (["--model", "cifar-resnet8", "--num-classes", "1"], "at least 2"),
        (["--model", "cifar-resnet8", "--image-size", "2"], "at least 4"),
        (["--model", "cifar-resnet8", "--data", "digits", "--num-classes", "3"], "--data says how many"),
        (["--model", "cifar-resnet8", "--data", "digits", "--target", "macs=0.5"], "--weights PATH"),
        (["--model", "cifar-resnet8", "--data", "dogits"], "nearest: digits"),
        (["--model", "cifar-resnet8", "--data", "imagefolder:nowhere", "--ratio", "0.5"], "nowhere"),
        (["--model", "cifar-resnet8", "--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--model", "cifar-resnet8", "--data", "digits", "--mean", "2"], "--mean 2"),
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
