"""The storeys: imports go down only, and below the line nothing imports Ray."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ice_ray"
# From the ground up. A module may import from its own storey and from those before it.
STOREYS = [
    [
        "environment",
        "errors",
        "retry",
        "storage_path",
        "local_path",
        "object_store",
        "address",
        "files",
        "tensor_files",
        "export_formats",
        "interruption",
        "claims",
        "randomness",
        "wording",
        "hyperparameters",
        "ray_environment",
        "processor",
        "freed_memory",
        "progress",
        "torch_defaults",
        "guard",
        "extensions",
        "invocation",
    ],
    ["objective", "objectives", "data", "models"],
    ["training"],
    ["repair"],
    ["pruning"],
    ["distributed"],
    ["cache", "engine"],
    ["pipelines"],
    ["artifact", "exporter"],
    ["ingest"],
    ["cluster"],
    ["trials", "replay"],
    ["observe"],
    ["config"],
    ["workflow"],
    ["api"],
    ["__main__"],
]
FIRST_WITH_RAY = STOREYS.index(["ingest"])
HEIGHT = {name: height for height, names in enumerate(STOREYS) for name in names}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def storey_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_every_part_has_its_storey():
    assert {storey_of(path) for path in FILES} == set(HEIGHT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    own = storey_of(path)
    for name in imported(path):
        if name.startswith("ice_ray."):
            other = name.split(".")[1]
            assert HEIGHT[other] <= HEIGHT[own], f"{own} must not import {name}"
            same_storey = HEIGHT[other] == HEIGHT[own] and other != own
            assert not (same_storey and {own, other} <= {"trials", "replay"}), f"{own} must not import {name}"


@pytest.mark.parametrize("path", [p for p in FILES if HEIGHT[storey_of(p)] < FIRST_WITH_RAY], ids=str)
def test_below_the_line_nothing_names_ray(path):
    assert not {name for name in imported(path) if name == "ray" or name.startswith("ray.")}


def test_the_package_and_its_core_load_without_ray():
    program = (
        "import sys, ice_ray, ice_ray.pipelines.ice, ice_ray.distributed; "
        "sys.exit(any(name == 'ray' or name.startswith('ray.') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_process_that_decodes_images_loads_no_torch():
    program = "import sys, ice_ray.ingest.decoding; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


SLOW_TO_LOAD = {"torch", "torchvision", "ray", "optuna", "pyarrow", "pandas", "matplotlib", "numpy", "scipy", "sklearn"}
COMMANDS = ("prune", "search", "replay", "inspect", "report", "export")
READ_BEFORE_A_JOB = {
    **{f"{command} --help": 0 for command in COMMANDS},
    "prune --help-all": 0,
    "prune --pipeline imp --help": 0,
    "prune --preset paper-cifar10 --help": 0,
    "prune --nonsense": 2,
    "prune --ratio 2": 2,
    "prune --batch-size few": 2,
    "prune --preset nonsense": 2,
    "prune --pipeline nonsense": 2,
    "prune --target macs=2": 2,
    "prune --space nonsense": 2,
    "inspect --model cifar-resnet8 --ratio 2": 2,
    "replay": 2,
    "nonsense": 2,
}


@pytest.mark.parametrize(("words", "code"), READ_BEFORE_A_JOB.items(), ids=READ_BEFORE_A_JOB)
def test_help_and_wrong_words_wait_for_no_large_library(words, code):
    """What the command line reads is in modules that load none at their tops: a job's own come after its options."""
    program = (
        "import sys; from ice_ray.__main__ import main\n"
        "try: code = main(sys.argv[1:])\n"
        "except SystemExit as end: code = end.code or 0\n"
        f"print(code, *sorted({SLOW_TO_LOAD!r} & set(sys.modules)), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", program, *words.split()], check=False, capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1] == str(code)


def test_the_package_and_its_settings_load_no_large_library():
    program = (
        "import sys, ice_ray; ice_ray.IceConfig(), ice_ray.SearchConfig(), ice_ray.ReplayConfig(), dir(ice_ray); "
        f"sys.exit(' '.join({SLOW_TO_LOAD!r} & set(sys.modules)) or None)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_core_loads_no_compiler():
    """Torch-Pruning would bring it, by way of timm."""
    program = "import sys, ice_ray.pipelines.ice; sys.exit(bool({'timm', 'torch._dynamo'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_no_weights_are_loaded_without_weights_only():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}["weights_only"] == "True"


def test_test_files_have_names_of_their_own():
    """pytest takes two of one name for one module, and stops before it has run any."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]
