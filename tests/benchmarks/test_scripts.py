"""The benchmarks keep to the public API, the tools to what there is; scripts and pages of results name each other."""

import ast
import importlib
import io
import re
import shlex
import subprocess
import sys
import tarfile
from argparse import Namespace
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

import ice_ray
from ice_ray.config.command_line import parse
from ice_ray.config.run import RunConfig

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
BENCHMARKS, TOOLS = (sorted((ROOT / folder).glob("*.py")) for folder in ("benchmarks", "tools"))
PAGES = sorted(RESULTS.glob("*.md"))
sys.path.insert(0, str(ROOT / "benchmarks"))


def names_of(path: Path) -> dict[str, list[str]]:
    """What a file imports, by module."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name: [] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.setdefault(str(node.module), []).extend(alias.name for alias in node.names)
    return found


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.name)
def test_a_benchmark_needs_nothing_but_the_public_api(path):
    imported = names_of(path)
    assert not [module for module in imported if module.startswith(("ice_ray.", "ray"))]
    used = set(imported.get("ice_ray", []))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ice_ray":
            used.add(node.attr)
    assert used <= set(ice_ray.__all__)


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.name)
def test_what_a_tool_takes_from_the_package_is_there(path):
    for module, names in names_of(path).items():
        if module.split(".")[0] == "ice_ray":
            own = importlib.import_module(module)
            assert not [name for name in names if not hasattr(own, name)], module


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_of_results_names_a_script_that_is_there_or_the_commit_that_has_it(path):
    text = path.read_text()
    scripts = re.findall(r"`python ((?:benchmarks|tools|jobs)/\w+\.py)", text)
    commits = re.findall(r"(?:commit |git show )([0-9a-f]{7})\b", text)
    assert all((ROOT / script).exists() for script in scripts if not commits)
    assert scripts or commits
    if git("rev-parse", "--is-shallow-repository") == "false\n":
        objects = [f"{commit}^{{commit}}" for commit in commits] + re.findall(r"git show ([0-9a-f]{7}:[\w/.]+)", text)
        assert not [name for name in objects if git("cat-file", "-t", name) not in ("commit\n", "blob\n")]


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout


def is_script(path: Path) -> bool:
    return '__name__ == "__main__"' in path.read_text()


@pytest.mark.parametrize("path", [*filter(is_script, BENCHMARKS), *TOOLS], ids=lambda path: path.name)
def test_a_script_is_in_the_table_and_a_page_of_results_names_its_command(path):
    command = f"python {path.parent.name}/{path.name}"
    assert path.name in (path.parent / "README.md").read_text()
    assert command in path.read_text()
    if path.parent.name == "benchmarks" and path.name not in ("prepare.py", "reference.py"):  # which make none
        assert any(f"`{command}" in page.read_text() for page in PAGES)


def test_every_page_is_linked_and_every_link_leads_somewhere():
    for folder in ("benchmarks", "tools"):
        linked = re.findall(r"\]\(([^)#]+)\)", (ROOT / folder / "README.md").read_text())
        assert not [link for link in linked if not (ROOT / folder / link).exists()]
        if folder == "benchmarks":
            assert {f"results/{page.name}" for page in PAGES} <= set(linked)


def test_the_jobs_take_every_line_of_the_comparisons():
    compare = importlib.import_module("compare")
    for contestants in compare.TABLES.values():
        for own in contestants:
            parse(RunConfig, [*shlex.split(own.options), "--ratio", "0.6"], "compare.py")
            assert not own.tuned_as or own.tuned_as == compare.ICE.name
    parse(RunConfig, importlib.import_module("main_job").OPTIONS.split(), "main_job.py")


def test_pruning_takes_every_keyword_of_the_questions():
    options = importlib.import_module("options")
    for variants in options.QUESTIONS.values():
        for keywords in variants.values():
            own = {name: value for name, value in keywords.items() if name != "hyperparameters"}
            ice_ray.IceConfig(0.6, **own)
            assert set(own) <= {field.name for field in fields(ice_ray.IceConfig)}


def test_the_published_archive_becomes_parquet_that_jobs_and_benchmarks_read(tmp_path):
    prepare, cifar = importlib.import_module("prepare"), importlib.import_module("cifar")
    random = np.random.default_rng(0)
    rows = {name: random.integers(0, 256, (20, 3073), np.uint8) for names in prepare.SPLITS.values() for name in names}
    classes = [f"class{number}" for number in range(10)]
    with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as archive:
        for name, own in {**rows, "batches.meta.txt": None}.items():
            if own is not None:
                own[:, 0] %= 10
            content = "\n".join([*classes, "", ""]).encode() if own is None else own.tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    prepare.write_parquet(tmp_path / "cifar.tar.gz", tmp_path / "cifar10")
    images, labels = cifar.cifar10(tmp_path / "cifar10", "train")
    expected = np.concatenate([rows[name] for name in prepare.SPLITS["train"]])
    assert torch.equal(images, torch.from_numpy(expected[:, 1:].reshape(-1, 3, 32, 32)))
    assert labels.tolist() == expected[:, 0].tolist()
    from ice_ray.ingest.datasets import open_dataset

    dataset = open_dataset(f"parquet:{tmp_path / 'cifar10'}")
    assert dataset.class_names == tuple(classes)
    assert dataset.labels["test"].tolist() == rows["test_batch.bin"][:, 0].tolist()


def test_the_reference_run_is_one_that_the_page_has(tmp_path):
    reference = importlib.import_module("reference")
    assert reference.SETTING in reference.CONTENDERS["ice_ray"].settings
    assert reference.published(20) is None or reference.published(20)["key"]["epochs"] == 0
    (tmp_path / "cifar10").mkdir()
    for name in ("cifar10/test-0.parquet", "resnet20-12fca82f.th"):
        (tmp_path / name).touch()
    given = Namespace(into=tmp_path, archive=None, depth=20, train=None)
    assert reference.prepared(given) == (tmp_path / "cifar10", tmp_path / "resnet20-12fca82f.th")  # nothing is fetched


def test_a_part_of_the_images_has_as_many_of_every_class():
    part = importlib.import_module("cifar").part
    labels = torch.arange(100) % 10
    chosen = part(labels, 40, seed=1)
    assert labels[chosen].bincount().tolist() == [4] * 10
    assert len(set(chosen.tolist())) == 40
    assert not torch.equal(chosen, part(labels, 40, seed=2))


def test_the_networks_of_benchmarks_and_jobs_are_the_same():
    from ice_ray.models.cifar import CifarResNet

    torch.manual_seed(0)
    theirs, ours = CifarResNet(20).eval(), importlib.import_module("resnet").CifarResNet(20).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs(images))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here: run the check itself")
def test_the_check_of_the_gpu_ends_in_one_line_where_there_is_none(tmp_path):
    for asked, said in (((), "no CUDA device"), (("--device", "cpu", "--from", str(tmp_path)), "--pack")):
        words = [sys.executable, str(ROOT / "tools" / "gpu_check.py"), *asked]
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
        assert ended.returncode == 2
        assert said in ended.stderr
        assert ended.stderr.count("\n") == 1
