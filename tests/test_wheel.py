"""The wheel in an empty environment, from a folder of the user's own: every command, and every line that is there to be
copied out of a report or a model card.
"""

import html
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import ray
import users_folder
from own_head import running_head

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parent.parent
PRUNED = "runs/mine/pruned_model"
ONE_COMMAND = ["ice-ray", "prune", *users_folder.OPTIONS, *users_folder.NORMALISED, "--target", "macs=0.5"]
QUICK = ["--search.trials", "2", "--replay.workers", "1"]
_AWAY = ("error sending request", "dns error", "network was disabled", "failed to fetch", "connection", "timed out")


class Shell:
    """A user's shell in their own folder, the environment active that the wheel is in."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.folder, self.environment = folder, users_folder.environment(home)

    def run(self, line: str, code: int = 0) -> str:
        """Run a line as it would be pasted; returns what it printed."""
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == code, f"{line}\n{ended.stdout}{ended.stderr}"
        return ended.stdout + ended.stderr

    def python(self, code: str) -> str:
        """Run lines of Python as they would be pasted."""
        ended = subprocess.run(
            ["python", "-"], input=code, cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        assert ended.returncode == 0, f"{code}\n{ended.stdout}{ended.stderr}"
        return ended.stdout


def uv(*words: str, folder: Path) -> float:
    """Run uv to its end, from its cache where that has everything; returns the seconds it took."""
    found = shutil.which("uv")
    if found is None:
        pytest.skip("needs uv, which is not installed: pip install uv")
    started = time.monotonic()
    for offline in (["--offline"], []):
        ended = subprocess.run([found, *words, *offline], cwd=folder, capture_output=True, text=True)
        if ended.returncode == 0:
            return time.monotonic() - started
    if any(said in ended.stderr.lower() for said in _AWAY):
        pytest.skip(f"needs the project's packages, from uv's cache or a registry: {ended.stderr.strip()[-300:]}")
    raise AssertionError(ended.stderr)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT), folder=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> tuple[Path, float]:
    """An environment with the wheel in it and nothing else of ours, and the seconds that its installation took."""
    home = tmp_path_factory.mktemp("installed")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (home / "pins.txt").write_text("\n".join(project["tool"]["uv"]["constraint-dependencies"]))
    uv("venv", "--quiet", "--python", sys.executable, str(home / "env"), folder=home)
    python = str(home / "env" / "bin" / "python")
    pins = ["--constraint", str(home / "pins.txt")]
    return home / "env", uv("pip", "install", "--quiet", "--python", python, *pins, f"{wheel}[onnx]", folder=home)


@pytest.fixture(scope="module")
def shell(installed, tmp_path_factory) -> Shell:
    """The user's, in a folder outside the checkout that has the module, its weights and the images."""
    folder = tmp_path_factory.mktemp("users")
    users_folder.fill(folder)
    return Shell(installed[0], folder)


@pytest.fixture(scope="module")
def run(shell, installed) -> str:
    """From trained weights to ONNX in one command; returns what it printed."""
    started = time.monotonic()
    printed = shell.run(" ".join([*ONE_COMMAND, *QUICK, "--export", "onnx", "--name", "mine"]))
    print(f"installed in {installed[1]:.0f} s, pruned and exported in {time.monotonic() - started:.0f} s")
    return printed


def copyable(shell: Shell, report: str, label: str) -> str:
    """What the button beside a label copies."""
    page = (shell.folder / report).read_text()
    (found,) = re.findall(
        rf'<p class="soft">{re.escape(label)}.*?</p>\s*<div class="copy"><pre[^>]*><code>(.*?)</code>', page, re.S
    )
    return html.unescape(found)


def blocks(shell: Shell, language: str) -> list[str]:
    """The model card's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (shell.folder / PRUNED / "README.md").read_text(), re.S | re.M)


def test_it_is_the_wheel_that_runs(shell, installed):
    found = shell.python("import ice_ray; print(ice_ray.__file__)")
    assert Path(found.strip()).is_relative_to(installed[0])
    assert shell.run("ice-ray --version") == shell.run("python -m ice_ray --version")
    presets = """
from ice_ray.config.preset import load_preset, named_presets
print([load_preset(each) for each in named_presets()])
"""
    assert shell.python(presets).count("RunConfig(") == len(
        list((ROOT / "ice_ray" / "config" / "presets").glob("*.yaml"))
    )
    spaces = """
from ice_ray.trials.space import load_space, named_spaces
print(*(len(load_space(each).points()) for each in named_spaces("ice")))
"""
    assert len(shell.python(spaces).split()) == len(
        list((ROOT / "ice_ray" / "trials" / "spaces" / "ice").glob("*.yaml"))
    )


@pytest.fixture(scope="module")
def without(run, shell, installed, tmp_path_factory) -> Shell:
    """A shell with torch and onnxruntime, in a folder with what the page writes for elsewhere and the user's module."""
    home, folder = tmp_path_factory.mktemp("without"), tmp_path_factory.mktemp("elsewhere")
    (here,) = of_page("here")
    shell.python(here)
    for name in ("mynet.py", "pruned.pt", "pruned.pth", "pruned.pt2", "pruned.onnx"):
        shutil.copy(shell.folder / name, folder)
    uv("venv", "--quiet", "--python", sys.executable, str(home / "env"), folder=home)
    pins = ["--python", str(home / "env" / "bin" / "python"), "--constraint", str(installed[0].parent / "pins.txt")]
    uv("pip", "install", "--quiet", *pins, "torch", "numpy", "onnxruntime", folder=home)
    return Shell(home / "env", folder)


def of_page(mark: str) -> list[str]:
    """The blocks of docs/without_ice_ray.md that follow a mark."""
    page = (ROOT / "docs" / "without_ice_ray.md").read_text()
    return re.findall(rf"<!-- {mark} -->\n```python\n(.*?)```", page, re.DOTALL)


def test_elsewhere_there_is_no_ice_ray(without):
    looked = "from importlib.util import find_spec; print(find_spec('ice_ray'), find_spec('ray'))"
    assert without.python(looked) == "None None\n"


@pytest.mark.parametrize("block", of_page("elsewhere"))
def test_the_model_runs_without_ice_ray(block, without, shell):
    """Each file by the page's lines, with the logits of the module."""
    images = "torch.linspace(-1, 1, 5 * 3 * 8 * 8).reshape(5, 3, 8, 8)"
    asked = block.replace("torch.zeros(5, 3, 8, 8)", images)
    asked = asked.replace("np.zeros((5, 3, 8, 8), np.float32)", f"__import__('torch').{images[6:]}.numpy()")
    assert asked != block
    told = "print([[round(float(value), 3) for value in row] for row in logits])"
    (here,) = of_page("here")
    expected = shell.python(f"{here}\nlogits = model({images})\n{told}")
    found = without.python(f"{asked}\n{told}")
    for row, same in zip(json.loads(found), json.loads(expected), strict=True):
        assert row == pytest.approx(same, abs=5e-3)


def test_inspect(shell):
    printed = shell.run("ice-ray inspect --model mynet:build --image-size 8 --target macs=0.5")
    for layer, why in (("stem", "a sum couples"), ("mixed.near.2", "a concatenation couples")):
        assert f"{layer}: {why}" in printed


def test_one_command_from_weights_to_onnx(run, shell):
    assert "model.onnx: " in run and "report in runs/mine/report.html" in run
    code = f"""
import json, onnxruntime
said = json.load(open("{PRUNED}/model.json"))["metrics"]
assert said["pruned"]["multiply_adds"] < 0.55 * said["dense"]["multiply_adds"]
assert said["pruned"]["test_accuracy"] > said["dense"]["test_accuracy"] - 5 > 80
print(onnxruntime.InferenceSession("{PRUNED}/model.onnx").get_inputs()[0].shape)
"""
    assert shell.python(code).strip().endswith("3, 8, 8]")


def test_the_report_s_lines_work_as_they_stand(run, shell):
    report = "runs/mine/report.html"
    loading = copyable(shell, report, "In Python")
    assert "from mynet import build" in loading
    assert shell.python(loading + "\nprint(type(model).__name__)\n").strip() == "Net"
    exporting = copyable(shell, report, "For other runtimes")
    assert exporting == f"ice-ray export {PRUNED} --format onnx --builder mynet:build"
    (shell.folder / PRUNED / "model.onnx").unlink()
    shell.run(exporting)
    assert (shell.folder / PRUNED / "model.onnx").is_file()
    made = copyable(shell, report, "How it was made")
    assert made.startswith("ice-ray prune ") and "exists: go on with it (--resume)" in shell.run(made, code=2)
    assert "is finished; its pruned model" in shell.run(f"{made} --resume")


def test_the_card_s_lines_work_as_they_stand(run, shell):
    (loading,) = blocks(shell, "python")
    assert shell.python(loading + "\nprint(type(model).__name__)\n").strip() == "Net"
    exporting, made = blocks(shell, "sh")
    assert f"{PRUNED}/model.onnx: " in shell.run(exporting)
    assert f"{PRUNED}/model.pt2: " in shell.run(exporting.replace("onnx", "torch"))
    assert "is finished; its pruned model" in shell.run(f"{made.strip()} --resume")


def test_search_and_replays_of_its_trials_with_other_settings(shell):
    printed = shell.run("ice-ray search --preset small --search.concurrent 1 --name searched")
    (replay,) = re.findall(r"replay it with (.*)", printed)
    assert (
        replay
        == copyable(shell, "runs/searched/report.html", "Stage 2")
        == "ice-ray replay --config runs/searched/best.json"
    )
    shell.run(f"{replay} --trial 0")
    assert "take another --name" in shell.run(f"{replay} --trial 0 --ratio 0.3", code=2)
    printed = shell.run(f"{replay} --trial 0 --ratio 0.3 --name smaller --export torch")
    assert "runs/searched/replays/smaller/pruned_model/model.pt2: " in printed
    widths = [
        json.loads((shell.folder / "runs/searched/replays" / name / "pruned_model/model.json").read_text())["widths"]
        for name in ("trial-000", "smaller")
    ]
    assert sum(widths[1].values()) > sum(widths[0].values())
    assert (shell.folder / "runs/searched/replays/trial-000/report.html").is_file()


def test_report(run, shell):
    (shell.folder / "runs/mine/report.html").unlink()
    assert shell.run("ice-ray report runs/mine").splitlines()[-1] == "runs/mine/report.html"
    assert (shell.folder / "runs/mine/report.html").is_file()


def test_the_unpacked_wheel_goes_along_with_a_submitted_job(wheel, tmp_path):
    """docs/cluster.md's lines: a job takes ice_ray from what was sent, and the rest from its node."""
    page = (ROOT / "docs" / "cluster.md").read_text()
    block = page.partition("<!-- ice_ray sent along -->\n```sh\n")[2].partition("```\n")[0]
    unpack, submit = block.replace("\\\n", " ").splitlines()
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(wheel, folder)
    prune = " python -m ice_ray prune --storage /shared/runs --name mine"
    where = "import ice_ray, ray; from ice_ray.__main__ import main; print(ice_ray.__file__, ray.__file__)"
    look = f"{where}; main(['inspect', '--model', 'cifar-resnet8'])"
    assert submit.endswith(prune)
    with running_head(1) as head:
        line = submit.removesuffix(prune).replace("http://127.0.0.1:8265", head.dashboard)
        lines = f"{unpack}\n{line} python -c {shlex.quote(look)}"
        ended = head.submit("bash", "-euc", lines, cwd=folder)
    printed = ended.stdout + ended.stderr
    assert ended.returncode == 0, printed
    of_ours, of_ray = next(line.split() for line in printed.splitlines() if line.endswith("/ray/__init__.py"))
    assert "/runtime_resources/py_modules_files/" in of_ours and of_ray == ray.__file__
    assert "cifar-resnet8: 3 pruning steps" in printed
