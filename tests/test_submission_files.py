"""What a submission carries: the project's own versions, and neither weights nor data."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def name_of(requirement: str) -> str:
    return re.split(r"[\s\[<>=!;]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_the_runtime_environment_has_the_project_s_pins():
    packages = yaml.safe_load((ROOT / "jobs" / "runtime_env.yaml").read_text())["uv"]["packages"]
    found = {name_of(package): package.partition(";")[0].strip().rpartition("==")[2] for package in packages}
    pinned = dict(pin.split("==") for pin in PROJECT["tool"]["uv"]["constraint-dependencies"])
    assert {name: version for name, version in found.items() if pinned.get(name) != version} == {}
    assert {name_of(wanted) for wanted in PROJECT["project"]["dependencies"]} <= set(found)
    assert not {"pytest", "mypy", "ruff"} & set(found)


def test_weights_and_data_stay_at_home(tmp_path):
    """As Ray packs a working directory."""
    from ray._private.runtime_env.packaging import create_package, get_uri_for_directory

    (tmp_path / ".rayignore").write_text((ROOT / ".rayignore").read_text())
    kept, left = ["jobs/a.py", "space.yaml"], ["w.safetensors", "x/w.pth", "data/a.txt", "d/train.parquet", "i/0.jpg"]
    for name in kept + left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    import zipfile

    package = tmp_path.parent / "package.zip"
    assert get_uri_for_directory(str(tmp_path), include_gitignore=True)
    create_package(str(tmp_path), package, include_gitignore=True)
    names = {name for name in zipfile.ZipFile(package).namelist() if not name.endswith("/")}
    assert names - {".rayignore"} == set(kept)
