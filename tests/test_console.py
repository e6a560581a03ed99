"""The console command: what it prints by itself, how it ends, how soon, and that it names itself as it was started."""

import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

import ice_ray
from ice_ray.__main__ import main
from ice_ray.invocation import job_words

ROOT = Path(__file__).parent.parent
COMMANDS = ("prune", "search", "replay", "inspect", "report", "export")
CONSOLE = Path(sys.executable).with_name("ice-ray")
STARTS = {
    "console command": ([str(CONSOLE), "inspect"], "ice-ray inspect"),
    "module": ([sys.executable, "-m", "ice_ray", "inspect"], "ice-ray inspect"),
    "script": ([sys.executable, str(ROOT / "jobs" / "ice_inspect.py")], "ice_inspect.py"),
}


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(capsys, words):
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    for command in COMMANDS:
        assert sum(line.startswith(f"  {command} ") for line in lines) == 1


def test_every_script_is_a_command():
    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} == {f"ice_{command}" for command in COMMANDS}


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(capsys, option):
    assert main([option]) == 0
    assert capsys.readouterr().out == f"ice-ray {ice_ray.__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prone"], "unknown command 'prone' (nearest: prune; valid: "),
        (["--ratio", "0.5", "prune"], "the command comes first, then its options such as --ratio"),
        (["a\nb"], r"unknown command 'a b'"),
        ([""], "unknown command ''"),
    ],
)
def test_what_is_no_command_ends_with_2_and_one_line(capsys, words, said):
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith(f"ice-ray: {said}") and printed.err.endswith("; see ice-ray --help\n")


@pytest.mark.parametrize(("words", "name"), STARTS.values(), ids=STARTS)
def test_wrong_input_is_told_in_the_name_that_was_called(words, name, tmp_path):
    ended = subprocess.run([*words, "--model", "cifar-resnet21"], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 2 and ended.stderr.startswith(f"{name}: ") and ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir()) and not ray.is_initialized()


@pytest.mark.parametrize("start", ["console command", "module"])
def test_help_waits_for_nothing_heavy(start):
    """Torch and Ray take seconds to load; twenty times an empty Python would be a fraction of one."""
    words = [*STARTS[start][0][:-1], "--help"]
    assert _seconds(words) < 20 * _seconds([sys.executable, "-c", "pass"])
    heavy = "{'torch', 'ray', 'numpy'} & set(sys.modules)"
    program = f"import sys; from ice_ray.__main__ import main; main(['--help']); print({heavy})"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.endswith("set()\n")


def _seconds(words: list[str]) -> float:
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - started)
    return min(taken)


def test_nobody_reading_is_no_fault():
    line = f"{shlex.quote(str(CONSOLE))} --help | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["jobs/ice_prune.py"], ["PYTHON", "jobs/ice_export.py"]),
        ([str(ROOT / "jobs" / "ice_prune.py")], ["PYTHON", "jobs/ice_export.py"]),
        ([str(ROOT / "ice_ray" / "__main__.py")], ["PYTHON", "-m", "ice_ray", "export"]),
        ([str(CONSOLE)], ["CONSOLE", "export"]),
        (["a/notebook/kernel.py"], ["CONSOLE", "export"]),
        (["mine/ice_prune.py"], ["CONSOLE", "export"]),
    ],
)
@pytest.mark.parametrize("on_path", [True, False])
def test_the_words_that_start_the_next_job(monkeypatch, tmp_path, argv, words, on_path):
    """By their bare names where a shell finds them, else by a path that is right from here."""
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", str(CONSOLE.parent) if on_path else str(tmp_path))
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    names = {"PYTHON": "python", "CONSOLE": "ice-ray"}
    paths = {"PYTHON": shown(Path(sys.executable)), "CONSOLE": shown(CONSOLE)}
    expected = [(names if on_path else paths).get(word, word) for word in words]
    if not on_path and words[0] == "CONSOLE" and argv != [str(CONSOLE)]:
        expected = [paths["PYTHON"], "-m", "ice_ray", "export"]
    assert job_words("export") == expected
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert job_words("export") == ["uv", "run", *expected]
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert job_words("export") == ["ray", "job", "submit", "--working-dir", ".", "--", *expected]
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")
    assert job_words("export")[:5] == ["ray", "job", "submit", "--address", "http://head:8265"]


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
