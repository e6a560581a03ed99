"""docs/cluster.md's lines for a folder of the user's own, against a real head: only what is meant to go along does."""

import json
import re
import shlex
import subprocess
import zipfile
from pathlib import Path

import pytest
import users_folder
from own_head import RAY, ROOT, running_head
from ray._private.runtime_env.packaging import create_package

from ice_ray.cluster import submission
from ice_ray.config.run import RunConfig
from ice_ray.errors import UserError
from ice_ray.local_path import LocalPath
from ice_ray.workflow.jobs import prune_job
from ice_ray.workflow.run_folder import RunFolder
from ice_ray.workflow.running import run

SENT = json.dumps({"runtime_env": {"working_dir": "gcs://_ray_pkg_1.zip"}})


def printed(mark: str) -> str:
    """The block of the page that follows a mark."""
    page = (ROOT / "docs" / "cluster.md").read_text()
    return page.partition(f"<!-- {mark} -->\n```sh\n")[2].partition("```\n")[0]


def sent(folder: Path) -> set[str]:
    """What Ray would upload of a folder."""
    package = folder.parent / f"{folder.name}.zip"
    package.unlink(missing_ok=True)
    create_package(str(folder), package, include_gitignore=True)
    return {name for name in zipfile.ZipFile(package).namelist() if not name.endswith("/")}


def test_runs_stay_at_home_and_with_one_line_so_does_all_but_code(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    for name in ("mynet.py", "space.yaml", "w.pth", "photos/0.png", "mypackage/net.py", "mypackage/w.bin"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    monkeypatch.chdir(folder)
    RunFolder(folder / "runs" / "one").create(RunConfig(), "")
    (folder / "runs" / "one" / "dense.safetensors").write_text("weights")
    assert "photos/0.png" in sent(folder) and not any(name.startswith("runs/") for name in sent(folder))
    subprocess.run(["bash", "-euc", printed("what goes along")], check=True)
    assert sent(folder) == {"mynet.py", "space.yaml"}
    with (folder / ".rayignore").open("a") as file:
        file.write("!mypackage\n")
    assert sent(folder) == {"mynet.py", "space.yaml", "mypackage/net.py"}


def test_what_others_keep_there_is_not_left_out(tmp_path, monkeypatch):
    """Runs in the working directory itself, or on a share, are nobody's folder of runs alone."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for storage in (tmp_path / "here", tmp_path / "share"):
        RunFolder(storage / "one").create(RunConfig(), "")
        assert not (storage / ".rayignore").exists()


def test_runs_in_what_was_sent_along_are_refused(tmp_path, monkeypatch, capsys):
    """Ray removes it after the job."""
    monkeypatch.chdir(tmp_path)
    submission.check_lasting(LocalPath(tmp_path / "runs"))
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", SENT)
    submission.check_lasting(LocalPath(tmp_path.parent / "runs"))
    with pytest.raises(UserError, match="would go with this submitted job's copy"):
        submission.check_lasting(LocalPath(tmp_path / "runs"))
    assert run(prune_job, RunConfig, "p", []) == 2
    assert capsys.readouterr().err.startswith("p: --storage 'runs' would go with")
    assert not list(tmp_path.iterdir())


def test_what_was_sent_along_is_told_by_its_largest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    for number, name in enumerate(("photos/0.png", "photos/cats/1.png", "a.py")):
        (tmp_path / name).write_bytes(bytes(10 * (3 - number)))
    assert submission.uploaded() == []
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", SENT)
    assert submission.uploaded() == [(50, "photos/"), (10, "a.py")]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_submitted_from_a_folder_without_a_checkout(tmp_path):
    folder, shared = tmp_path / "mine", tmp_path / "shared"
    folder.mkdir()
    shared.mkdir()
    users_folder.fill(folder)
    for name in ("trained.pth", "photos"):
        (folder / name).rename(shared / name)
    (folder / "large.bin").write_bytes(bytes(11_000_000))
    line = printed("submission of one's own").replace("\\\n", " ").splitlines()[1].replace("/shared", str(shared))
    quick = ["--image-size", "8", *users_folder.NORMALISED, "--search.trials", "1", "--replay.workers", "1"]
    with running_head(2) as head:
        words = [head.dashboard if word.startswith("http://") else word for word in shlex.split(line)]
        first = head.submit(RAY, *words[1:], *quick, "--preset", "nothing", cwd=folder)
        assert "unknown preset 'nothing'" in first.stdout + first.stderr and first.returncode != 0
        loose = head.run(RAY, *words[1:], *quick, cwd=folder)
        assert loose.returncode == 0, loose.stdout + loose.stderr
        assert "11 MB of the working directory were uploaded with this job: large.bin (11.0 MB)" in loose.stdout
        assert "mynet.py" in loose.stdout and "dense against pruned" in loose.stdout
        made = json.loads((shared / "runs" / "mine" / "best.json").read_text())["commands"][0]
        assert made.startswith(f"ray job submit --address {head.dashboard} --working-dir . -- ") and " prune " in made
        lines = f"{printed('what goes along')}{made} --resume"
        again = head.run("bash", "-euc", lines, cwd=folder)
        assert "is finished; its pruned model is in" in again.stdout, again.stdout + again.stderr
        assert "were uploaded with" not in again.stdout
    assert not re.search("Traceback", loose.stdout)
