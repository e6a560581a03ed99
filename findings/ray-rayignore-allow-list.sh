#!/usr/bin/env bash
# A .rayignore that names what is to be uploaded.
#
# One would guess: as a .gitignore, whose syntax it has, `*` and then `!main.py` leaves main.py in and all else out.
# What happens: nothing at all is uploaded, and nothing says so: the working directory itself matches `*`, and Ray does not
# look into a folder that is ignored. `/*` in the place of `*` does the same. With `!.` as a further line main.py goes.
#
# Packs a folder with the function that packs a job's working_dir; no Ray is started. Installs into a temporary folder,
# which goes afterwards.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "ray==2.60.0"
mkdir "$work/job"
echo 'print("hello")' >"$work/job/main.py"
echo 1 >"$work/job/data.bin"
git -C "$work/job" init -q
WORK=$work "$work/venv/bin/python" - <<'PYTHON'
import os
import pathlib
import subprocess
import zipfile

import ray
from ray._private.runtime_env.packaging import create_package

work = pathlib.Path(os.environ["WORK"])
job = work / "job"


def taken_by_ray(lines):
    (job / ".rayignore").write_text("\n".join(lines) + "\n")
    (work / "job.zip").unlink(missing_ok=True)  # one that is there would not be written anew
    create_package(str(job), work / "job.zip", include_gitignore=False)
    return sorted(name for name in zipfile.ZipFile(work / "job.zip").namelist() if not name.startswith(".git/"))


def taken_by_git(lines):
    (job / ".rayignore").unlink(missing_ok=True)
    (job / ".gitignore").write_text("\n".join(lines) + "\n")
    listed = subprocess.run(
        ["git", "-C", str(job), "ls-files", "--others", "--exclude-standard"], capture_output=True, text=True, check=True
    )
    (job / ".gitignore").unlink()
    return sorted(listed.stdout.split())


git = taken_by_git(["*", "!main.py"])
bare, rooted, mended = (taken_by_ray(lines) for lines in (["*", "!main.py"], ["/*", "!main.py"], ["*", "!main.py", "!."]))
print(f"ray {ray.__version__}")
print(f"`*`, `!main.py`: git takes {git}, Ray {bare}; `/*`, `!main.py`: Ray {rooted}; with `!.`: Ray {mended}")
as_found = git == mended == ["main.py"] and bare == rooted == []
raise SystemExit(0 if as_found else "the behaviour has changed")
PYTHON
