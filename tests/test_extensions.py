"""The user's own code: from the working directory or installed, named before it runs, and from nowhere else."""

import sys
from pathlib import Path

import pytest

from ice_ray.config.run import RunConfig
from ice_ray.errors import UserError
from ice_ray.extensions import load_own, origin_of
from ice_ray.workflow.jobs import prune_job
from ice_ray.workflow.running import run

LEAVES_A_TRACE = "from pathlib import Path\nPath('trace').touch()\ndef build(): return None\n"


def test_the_working_directory_and_installed_packages_are_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_here.py").write_text(LEAVES_A_TRACE)
    (tmp_path / "package_here").mkdir()
    (tmp_path / "package_here" / "__init__.py").write_text(LEAVES_A_TRACE)
    assert origin_of("mine_here:build", "model") == tmp_path / "mine_here.py"
    assert origin_of("package_here.models:build", "model") == tmp_path / "package_here"
    assert origin_of("torchvision.models:resnet18", "model").name == "torchvision"
    assert origin_of("ice_ray.models.registry:BUILDERS", "model").name == "ice_ray"  # installed as a checkout
    assert origin_of("json:dumps", "model").name == "json"
    assert not Path("trace").exists()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The working directory, where `planted` can be imported from another folder."""
    elsewhere, home = tmp_path / "elsewhere", tmp_path / "home"
    elsewhere.mkdir()
    home.mkdir()
    (elsewhere / "planted.py").write_text(LEAVES_A_TRACE)
    monkeypatch.syspath_prepend(str(elsewhere))
    monkeypatch.chdir(home)
    return home


def test_code_from_elsewhere_is_refused_and_not_run(home, capsys):
    for option in ("--model", "--data", "--criterion", "--pipeline", "--search.objective"):
        assert run(prune_job, RunConfig, "p", [option, "planted:build"]) == 2
        said = capsys.readouterr().err
        assert "planted.py', which is neither in the working directory nor an installed package" in said
    assert not list(home.iterdir())
    assert "planted" not in sys.modules


def test_it_is_named_with_its_file_before_it_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ends_here.py").write_text("def build(): raise ValueError('from my own code')\n")
    assert run(prune_job, RunConfig, "p", ["--model", "ends_here:build"]) == 2
    said = capsys.readouterr()
    assert f"--model ends_here:build: your own code, from {tmp_path / 'ends_here.py'}" in said.out.replace("\n", "")
    assert "from my own code" in said.err


def test_nothing_there_is_said():
    with pytest.raises(UserError, match="No module named 'no_such_package'"):
        origin_of("no_such_package.module:build", "model")


def test_loading_refuses_what_naming_would(home):
    with pytest.raises(UserError, match="neither in the working directory nor an installed package"):
        load_own("planted:build", "model")
    assert not (home / "trace").exists()
