#!/usr/bin/env bash
# A wheel among Ray's py_modules.
#
# One would guess: runtime_env={"py_modules": ["tiny-1.0-py3-none-any.whl"]} puts what the wheel holds on the path of the
# workers, as it does for a folder; or, if it installs the wheel, then like pip, which leaves a package alone that
# satisfies the requirement.
# What happens: Ray runs `pip install WHEEL --target=FOLDER` and puts that folder first on the path. With --target, pip does
# not look at what is installed: it fetches everything that the wheel requires, and that comes before the versions of the
# node. Here the node's idna satisfies the requirement, and its six is newer than the wheel allows: the task imports
# another version of both. Nothing says so. With a folder of the same content the task imports those of the node.
#
# Installs into a temporary folder, which goes afterwards. Ray runs on this machine only.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "ray[default]==2.60.0" "six==1.17.0" "idna==3.10"
# Ray runs the `pip` of the PATH: let that be the one of this environment. Without a token here it would write one to ~/.ray.
RAY_AUTH_TOKEN=$("$work/venv/bin/python" -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
WORK=$work PATH="$work/venv/bin:$PATH" python - <<'PYTHON'
import os
import pathlib
import zipfile
from importlib.metadata import version

import ray

work = pathlib.Path(os.environ["WORK"])
wheel = work / "tiny-1.0-py3-none-any.whl"
files = {
    "tiny/__init__.py": "answer = 42\n",
    "tiny-1.0.dist-info/METADATA": (
        "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\nRequires-Dist: six==1.16.0\nRequires-Dist: idna>=3.4,<=3.11\n"
    ),
    "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
with zipfile.ZipFile(wheel, "w") as archive:
    for name, text in files.items():
        archive.writestr(name, text)
    archive.writestr("tiny-1.0.dist-info/RECORD", "".join(f"{name},,\n" for name in files))
folder = work / "tiny"
folder.mkdir()
(folder / "__init__.py").write_text(files["tiny/__init__.py"])


def imported():
    import idna
    import six
    import tiny

    return {"tiny": tiny.answer, "six": six.__version__, "idna": idna.__version__}


def with_py_modules(path):
    ray.init(num_cpus=1, include_dashboard=False, _temp_dir=str(work / "ray"), runtime_env={"py_modules": [str(path)]})
    answer = ray.get(ray.remote(imported).remote())
    ray.shutdown()
    return answer


by_folder, by_wheel = with_py_modules(folder), with_py_modules(wheel)
print(f"ray {ray.__version__}; the node has six {version('six')} and idna {version('idna')}")
print(f"py_modules with a folder: {by_folder}")
print(f"py_modules with a wheel that requires six==1.16.0 and idna>=3.4,<=3.11: {by_wheel}")
as_found = by_folder == {"tiny": 42, "six": "1.17.0", "idna": "3.10"}
as_found = as_found and by_wheel == {"tiny": 42, "six": "1.16.0", "idna": "3.11"}
raise SystemExit(0 if as_found else "the behaviour has changed")
PYTHON
