"""Code of the user's own that is no such thing, raises or answers nonsense: one line with its place, before work."""

from pathlib import Path

import numpy as np
import pytest
from ice_runs import PAPER

import ice_ray
from ice_ray.config.jobs import ExportConfig, InspectConfig
from ice_ray.config.run import RunConfig
from ice_ray.data.images import ImageSet, PruningData
from ice_ray.errors import OwnCodeError, RunError, UserError, told
from ice_ray.guard import blaming
from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.models.registry import ModelSpec
from ice_ray.workflow.exporting import export_job
from ice_ray.workflow.inspection import inspect_job
from ice_ray.workflow.jobs import prune_job
from ice_ray.workflow.running import run

OPTIONS = ("--model", "--data", "--criterion", "--pipeline", "--search.objective")
MINE = """
import sys
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ice_ray.errors import require
from ice_ray.pipelines.ice import IceConfig, IcePipeline
from ice_ray.pruning.criteria import Criterion


def takes_much(one, two, three):
    Path("trace").touch()


class Something:
    def __init__(self, *anything):
        Path("trace").touch()


def raises(*anything):
    raise ValueError("not today")


def leaves(*anything):
    sys.exit(3)


class Score(Criterion):
    answer = None

    def score(self, context):
        return {unit.layer: self.answer(unit.filters) for unit in context.units}


class Raises(Score):
    def answer(self, filters): return [][filters]


class Nan(Score):
    def answer(self, filters): return torch.full((filters,), float("nan"))


class Array(Score):
    def answer(self, filters): return np.ones(filters)


class Long(Score):
    def answer(self, filters): return torch.ones(filters + 1)


class Nothing(Criterion):
    def score(self, context): return {}


class NoDict(Criterion):
    def score(self, context): return torch.ones(8)


class Fine(Score):
    def answer(self, filters): return torch.arange(filters)


@dataclass(frozen=True, kw_only=True)
class Stands(IcePipeline):
    def step(self, executor, state, preparation): return state


@dataclass(frozen=True, kw_only=True)
class Forgets(IcePipeline):
    def step(self, executor, state, preparation): super().step(executor, state, preparation)


@dataclass(frozen=True, kw_only=True)
class Asks(IcePipeline):
    def step(self, executor, state, preparation): return executor.run(state.snapshot, "prune, please")


@dataclass(frozen=True, kw_only=True)
class Breaks(IcePipeline):
    def needs_fine_tuning(self, record, threshold): return 1 / 0


@dataclass(frozen=True, kw_only=True)
class Own(IcePipeline):
    def step(self, executor, state, preparation): return super().step(executor, state, preparation)


@dataclass(frozen=True)
class Group:
    depth: int = 1
    def __post_init__(self): require(self, "depth", self.depth > 0, "must be above 0")


@dataclass(frozen=True, kw_only=True)
class Grouped(IceConfig):
    group: Group = field(default_factory=Group)
    def __post_init__(self):
        if self.group.depth == 7: raise ValueError("not seven")


@dataclass(frozen=True, kw_only=True)
class WithGroup(IcePipeline):
    Config = Grouped


@dataclass(frozen=True, kw_only=True)
class Lacking(IceConfig):
    must: int


@dataclass(frozen=True, kw_only=True)
class WithLack(IcePipeline):
    Config = Lacking


@dataclass(frozen=True, kw_only=True)
class Refuses(IcePipeline):
    def __post_init__(self): raise ValueError("not today")


@dataclass(frozen=True, kw_only=True)
class Odd(IcePipeline):
    Config = dict


@dataclass(frozen=True)
class Images(IceConfig):
    images: int = 3


@dataclass(frozen=True, kw_only=True)
class Taken(IcePipeline):
    Config = Images


async def waits(*anything): Path("trace").touch()


class Unlike(BaseException): pass


class Mute(Exception):
    def __str__(self): raise ValueError("no words")


def raises_another_kind(*anything): raise Unlike("odd")
def raises_mutely(*anything): raise Mute
def raises_nothing_more(*anything): raise ValueError
def has_no_memory(*anything): raise MemoryError
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder of the user's with a module, of another name every time: modules are imported once."""
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def refused(capsys, *options, job=prune_job, kind=RunConfig):
    code = run(job, kind, "p", list(options))
    said = capsys.readouterr().err
    assert code == 2, said
    assert said.startswith("p: ") and said.count("\n") == 1
    return said.removeprefix("p: ").strip()


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", ["os:getcwd", "math:sqrt", "json:dumps", "os:abort", "sys:exit"])
def test_what_is_python_s_own_is_not_found_out_by_calling_it(mine, tmp_path, capsys, option, name):
    assert "is of Python's own library: it is no" in refused(capsys, option, name)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("option", [each for each in OPTIONS if each != "--pipeline"])
def test_what_cannot_be_called_as_it_would_be_is_not_called(mine, tmp_path, capsys, option):
    what = option.rpartition(".")[2].lstrip("-")
    assert refused(capsys, option, f"{mine}:takes_much").startswith(f"{what} '{mine}:takes_much' cannot be called with")
    assert f"{mine}:sqrt' is a function of Python's own" in refused(capsys, option, f"{mine}:sqrt")
    assert "has no attribute 'takes_mich' (nearest: takes_much" in refused(capsys, option, f"{mine}:takes_mich")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("takes_much", "is a function, not an ice_ray Pipeline; a pipeline is a class of"),
        ("Something", "is a class, not an ice_ray Pipeline; a pipeline is a class of"),
        ("takes_mich", "has no attribute 'takes_mich' (nearest: takes_much"),
        ("Odd", ": its Config is no dataclass of PipelineConfig"),
        ("Taken", ": its option 'images' has the name of one of every run's"),
        ("Refuses", "raised ValueError: not today ("),
    ],
)
def test_a_pipeline_that_is_none(mine, tmp_path, capsys, name, said):
    line = refused(capsys, "--pipeline", f"{mine}:{name}")
    assert line.startswith(f"pipeline '{mine}:{name}'") and said in line
    assert not (tmp_path / "trace").exists()


def test_options_of_a_pipeline_of_one_s_own_that_are_none(mine, capsys):
    own = ("--pipeline", f"{mine}:WithGroup", "--group.depth")
    assert refused(capsys, *own, "0") == "--group.depth 0 must be above 0"
    assert f"pipeline '{mine}:WithGroup' raised ValueError: not seven ({mine}.py:" in refused(capsys, *own, "7")
    assert "missing 1 required keyword-only argument: 'must'" in refused(capsys, "--pipeline", f"{mine}:WithLack")


@pytest.mark.parametrize("option", ["--model", "--criterion"])
def test_a_class_of_something_else_is_not_made(mine, tmp_path, capsys, option):
    assert "is a class, not a" in refused(capsys, option, f"{mine}:Something")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("option", ["--model", "--criterion"])
def test_what_raises_is_named_with_its_line(mine, capsys, option):
    line = MINE.splitlines().index('    raise ValueError("not today")') + 1
    what = option.lstrip("-")
    said = f"{what} '{mine}:raises' raised ValueError: not today ({mine}.py:{line})"
    assert refused(capsys, option, f"{mine}:raises") == said
    assert f"{what} '{mine}:leaves' raised SystemExit: 3 ({mine}.py:" in refused(capsys, option, f"{mine}:leaves")


@pytest.mark.parametrize("option", ["--model", "--criterion"])
def test_whatever_it_raises(mine, capsys, option):
    assert f"{mine}:raises_another_kind' raised Unlike: odd ({mine}.py:" in refused(
        capsys, option, f"{mine}:raises_another_kind"
    )
    assert f"raised Mute ({mine}.py:" in refused(capsys, option, f"{mine}:raises_mutely")
    assert f"raised ValueError ({mine}.py:" in refused(capsys, option, f"{mine}:raises_nothing_more")
    assert run(prune_job, RunConfig, "p", [option, f"{mine}:has_no_memory"]) == 1
    assert capsys.readouterr().err == "p: this machine's memory does not suffice (MemoryError)\n"


@pytest.mark.parametrize("option", OPTIONS)
def test_an_async_function_is_not_called(mine, tmp_path, capsys, option):
    assert "is an async function, and nobody would await it" in refused(capsys, option, f"{mine}:waits")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("at", ["import", "call"])
def test_code_that_changes_the_working_directory_changes_it_for_itself(mine, tmp_path, at):
    """It finds itself there again, and the relative paths of others are where they were."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "width.txt").write_text("12")
    text = """
import os
from pathlib import Path
from torch import nn
CHANGE
def build():
    INSIDE
    width = int(Path("width.txt").read_text())
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Flatten(), nn.Linear(width * 36, 10))
"""
    change = 'os.chdir("theirs")' if at == "import" else 'os.chdir("theirs") if Path("theirs").is_dir() else None'
    text = text.replace("CHANGE" if at == "import" else "INSIDE", change)
    text = text.replace("INSIDE", "pass").replace("CHANGE", "")
    (tmp_path / f"{mine}_{at}.py").write_text(text)
    for _ in range(2):
        assert ModelSpec(f"{mine}_{at}:build", 10).build()[0].out_channels == 12
        assert Path.cwd() == tmp_path
    assert run(inspect_job, InspectConfig, "p", ["--model", f"{mine}:raises", "--image-size", "8"]) == 2


@pytest.mark.parametrize("option", OPTIONS)
def test_a_module_that_cannot_be_read(mine, tmp_path, capsys, option):
    (tmp_path / f"{mine}_torn.py").write_text("def build(:\n")
    assert f"SyntaxError: invalid syntax ({mine}_torn.py:1)" in refused(capsys, option, f"{mine}_torn:build")
    (tmp_path / f"{mine}_raises.py").write_text("1 / 0\n")
    assert f"division by zero ({mine}_raises.py:1)" in refused(capsys, option, f"{mine}_raises:build")


def test_verbose_shows_all_of_it(mine, capsys):
    assert run(prune_job, RunConfig, "p", ["--model", f"{mine}:raises", "--verbose"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("p: model") and 'raise ValueError("not today")' in said and "Traceback" in said


@pytest.mark.parametrize("option", OPTIONS)
def test_names_that_nearly_have_the_form(mine, capsys, option):
    assert "if it is yours: 'model:MyNet'" in refused(capsys, option, "model.MyNet")
    assert "if it is yours: 'nets.model:MyNet'" in refused(capsys, option, "nets/model.py:MyNet")
    assert "if it is yours: 'model:MyNet'" in refused(capsys, option, "model:MyNet()")


def test_other_jobs_say_the_same(mine, tmp_path, capsys):
    inspected = {"job": inspect_job, "kind": InspectConfig}
    assert "raised ValueError: not today" in refused(capsys, "--model", f"{mine}:raises", **inspected)
    assert "Python's own" in refused(capsys, "--model", "os:getcwd", **inspected)
    exported = {"job": export_job, "kind": ExportConfig}
    assert "cannot be called" in refused(capsys, "no_model", "--builder", f"{mine}:takes_much", **exported)
    assert "if it is yours: 'model:Net'" in refused(capsys, "no_model", "--builder", "model.Net", **exported)


def pruned(point=IceHyperparameters(5, 0.3, 1e-3, 6e-4, 0.1, 50), **own):
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), dtype=np.uint8)
    some = ImageSet.from_numpy(images, np.arange(32) % 10)
    return ice_ray.prune(
        ModelSpec("cifar-resnet8", 10).build(),
        PruningData(some, some),
        ratio=0.5,
        hyperparameters=point,
        **(PAPER | own),
    )


@pytest.mark.parametrize(
    ("criterion", "said"),
    [
        ("Raises", "raised IndexError: list index out of range (NAME.py:"),
        ("Nan", "are not numbers (NaN)"),
        ("Array", "returned ndarray for layer layer1.0.conv1, not a tensor"),
        ("Long", "returned scores of shape (17,) for layer layer1.0.conv1, which has 16 filters"),
        ("Nothing", "returned nothing for layer layer1.0.conv1"),
        ("NoDict", "returned Tensor, not a dict"),
    ],
)
def test_scores_that_are_none(mine, criterion, said):
    with pytest.raises(OwnCodeError) as caught:
        pruned(criterion=f"{mine}:{criterion}")
    assert str(caught.value).startswith(f"criterion '{mine}:{criterion}' ")
    assert said.replace("NAME", mine) in str(caught.value)


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [
        ("Stands", "advance must add a record"),
        ("Forgets", "advance returned None, not a PipelineState"),
        ("Asks", "raised TypeError: 'prune, please' is no action (NAME.py:"),
        ("Breaks", "raised ZeroDivisionError: division by zero (NAME.py:"),
    ],
)
def test_steps_that_are_none(mine, pipeline, said):
    with pytest.raises(OwnCodeError) as caught:
        pruned(pipeline=f"{mine}:{pipeline}")
    assert str(caught.value).startswith(f"pipeline '{mine}:{pipeline}'")
    assert said.replace("NAME", mine) in str(caught.value)


def test_what_is_fine_is_taken(mine):
    records = pruned(criterion=f"{mine}:Fine", pipeline=f"{mine}:Own").records
    assert [step.filters_removed for step in records] == [8, 16, 32]


def test_what_is_not_theirs_is_not_blamed_on_them(mine):
    """A device that fails, or a process that has gone, is met in whoever's code runs."""
    import torch

    for fault in (RunError("storage"), torch.OutOfMemoryError("memory"), OSError("ours")):
        with pytest.raises(type(fault)) as caught, blaming({"model": f"{mine}:raises"}):
            raise fault
        assert caught.value is fault


def test_a_fault_is_found_in_whatever_carries_it():
    fault = UserError("theirs")
    carrier = RuntimeError("a library's")
    carrier.__cause__ = ValueError("another")
    carrier.__cause__.cause = fault
    assert told(carrier) is fault
    assert told(RuntimeError("nobody's")) is None
