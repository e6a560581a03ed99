"""The pages a reader sees: links lead somewhere, figures are the committed ones, options and moved names are there."""

import importlib
import json
import re
import shlex
import statistics
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "benchmarks")]

from options_page import page as options_page  # noqa: E402

import ice_ray  # noqa: E402
from ice_ray.config.command_line import RENAMED, parse  # noqa: E402
from ice_ray.config.jobs import ExportConfig, InspectConfig, ReplayJobConfig, ReportConfig  # noqa: E402
from ice_ray.config.run import RunConfig, default_run, flat_options  # noqa: E402
from ice_ray.errors import UserError  # noqa: E402
from ice_ray.pipelines.registry import PIPELINES  # noqa: E402

DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(DOCS.glob("*.md"))
BEFORE = Path(__file__).with_name("options_before.txt")
README = (ROOT / "README.md").read_text()


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


@cache
def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub and the site name them."""
    found: Counter[str] = Counter()
    names = set()
    for heading, inline in zip(tokens(page), tokens(page)[1:], strict=False):
        if heading.type == "heading_open":
            text = "".join(child.content for child in inline.children or [])
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            names.add(slug if not found[slug] else f"{slug}-{found[slug]}")
            found[slug] += 1
    return names


def links(page: Path) -> list[str]:
    """Where a page's links and pictures lead to, in Markdown and in HTML."""
    every = [child for token in tokens(page) for child in (token, *(token.children or []))]
    targets = [str(child.attrs[name]) for child in every for name in ("href", "src") if name in child.attrs]
    html = "".join(child.content for child in every if child.type in ("html_block", "html_inline"))
    return targets + re.findall(r'(?:href|src|srcset)="([^"]+)"', html)


def broken(page: Path) -> list[str]:
    wrong = []
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.resolve())):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_anchor_leads_somewhere(page):
    assert broken(page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A b\n\n[1](page.md#a-b) [2](#a-b)\n[3](none.md) [4](#c)\n\n![5](p.png)\n\n<img src='q'><img src=\"r\">"
    )
    assert broken(page) == ["none.md", "#c", "p.png", "r"]


def test_the_readme_is_read_in_a_minute():
    assert len(README.splitlines()) <= 170
    assert len(README.split()) <= 1500


@pytest.mark.parametrize(
    ("row", "tool", "training", "setting"),
    [
        ("ice_ray, least squares alone | 250", "ice_ray", (0, 0, False), "least squares, 250 images"),
        ("ice_ray, least squares alone | 1,000", "ice_ray", (0, 0, False), "least squares, 1,000 images"),
        ("ice_ray | 1,000", "ice_ray", (0, 0, False), "without labels, 1,000 images"),
        ("ice_ray | 2,000", "ice_ray", (0, 0, False), "without labels, 2,000 images"),
        ("Torch-Pruning, 1 epoch | 5,000", "Torch-Pruning", (5000, 1, False), ""),
        ("Torch-Pruning, 4 epochs | 5,000", "Torch-Pruning", (5000, 4, False), ""),
        ("Torch-Pruning, 3 epochs | 50,000", "Torch-Pruning", (50000, 3, False), ""),
        ("Torch-Pruning, 10 epochs | 50,000", "Torch-Pruning", (50000, 10, False), ""),
        ("ice_ray, then 10 epochs | 50,000", "ice_ray", (50000, 10, False), ""),
        ("ModelOpt FastNAS, 4 epochs | 5,000", "ModelOpt FastNAS", (5000, 4, False), ""),
    ],
)
def test_the_readme_s_figures_are_those_of_the_committed_runs(row, tool, training, setting):
    """Of every tool the way that the deciding half of the test images likes best."""
    (line,) = [line for line in README.splitlines() if line.startswith(f"| {row}, ")]
    accuracy, seconds = (float(re.search(r"[\d.,]+", cell).group().replace(",", "")) for cell in line.split("|")[3:5])
    rows = (ROOT / "benchmarks" / "results" / "peers-resnet20.jsonl").read_text().splitlines()
    found = importlib.import_module("standings").ways([json.loads(each) for each in rows], 20, 0.387)[tool]
    own = [each for each in found if each["training"] == training and each["setting"].endswith(setting)]
    best = max(own, key=lambda each: statistics.mean(each["deciding"]))
    real = statistics.mean(best["accuracy"]), statistics.mean(best["seconds"])
    assert (accuracy, seconds) == pytest.approx(real, abs=0.51)
    assert accuracy == pytest.approx(real[0], abs=0.051)
    assert f"before: {statistics.mean(best['dense']):.1f}%" in README


def test_the_page_of_options_is_current():
    """`python tools/options_page.py` writes it."""
    assert (DOCS / "options.md").read_text() == options_page()


def test_every_old_option_is_there_or_in_the_table_of_moved_names():
    now = set(re.findall(r"--[\w.-]+", (DOCS / "options.md").read_text()))
    moved = (DOCS / "moved.md").read_text().partition("## Options")[2]
    rows = [line.split("|")[1:3] for line in moved.splitlines() if line.startswith("| `--")]
    old, new = set(), set()
    for left, right in rows:
        old |= spelled(left)
        new |= spelled(right)
    before = set(BEFORE.read_text().split())
    assert {option for option in before if option not in now and option not in old} == set()
    assert {option for option in new if option not in now and not option.endswith(".")} == set()


# Of uv, pip, pytest, Ray, TensorBoard and this repository's tools.
OTHERS = {
    "--extra",
    "--group",
    "--no-dev",
    "--part",
    "--faults",
    "--fault-seed",
    "--generate",
    "--head",
    "--address",
    "--working-dir",
    "--follow",
    "--runtime-env",
    "--runtime-env-json",
    "--logdir",
    "--help",
    "--help-all",
}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in ("CHANGELOG.md", "moved.md", "options.md")], ids=str
)
def test_no_page_names_an_option_that_is_none(page):
    now = set(re.findall(r"--[\w.-]+", (DOCS / "options.md").read_text())) | OTHERS
    code = [
        child.content
        for token in tokens(page)
        for child in (token, *(token.children or []))
        if child.type in ("fence", "code_inline")
    ]
    named = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", "\n".join(code)))
    assert {
        option for option in named if re.sub(r"(--|\.)no-", r"\1", option) not in now and option not in now
    } == set()


@pytest.mark.parametrize(("old", "new"), RENAMED.items(), ids=str)
def test_an_old_option_is_answered_by_the_name_that_the_table_gives(old, new):
    with pytest.raises(UserError, match=f"^{re.escape(old)} is now {re.escape(new)}; see"):
        parse(RunConfig, [old, "1"], "prune")
    moved = (DOCS / "moved.md").read_text().partition("## Options")[2]
    (row,) = (line for line in moved.splitlines() if line.startswith("| `--") and old in spelled(line.split("|")[1]))
    assert new.partition(".")[0] in row


def test_an_old_switch_that_was_turned_off_is_answered_by_the_same():
    with pytest.raises(UserError, match=r"^--recovery\.no-distil is now --fine-tune\.no-distil; see"):
        parse(RunConfig, ["--recovery.no-distil"], "prune")


def test_every_renamed_option_is_answered():
    now = {f"--{option}" for pipeline in PIPELINES for option in flat_options(default_run(pipeline).as_dict())}
    assert set(RENAMED) | now >= set(BEFORE.read_text().split())
    assert set(RENAMED.values()) <= now


KINDS = {
    "prune": RunConfig,
    "search": RunConfig,
    "replay": ReplayJobConfig,
    "inspect": InspectConfig,
    "report": ReportConfig,
    "export": ExportConfig,
}


def test_printed_commands_are_understood():
    """Their options and values; what they name need not be there."""
    understood = 0
    for page in PAGES:
        shells = [token.content for token in tokens(page) if token.type == "fence" and token.info == "sh"]
        for line in "\n".join(shells).replace("\\\n", " ").splitlines():
            found = re.search(
                r"(?:\bice-ray |python jobs/ice_)(prune|search|replay|inspect|report|export)(?:\.py)?(.*)", line
            )
            if found is not None:
                words = shlex.split(re.sub(r"\[.*?\]", "", found[2]), comments=True)
                assert isinstance(parse(KINDS[found[1]], words, found[1]), KINDS[found[1]]), line
                understood += 1
    assert understood >= 6


def spelled(cell: str) -> set[str]:
    """Options of a cell; `.x` after `--a.b` is `--a.x`."""
    found: set[str] = set()
    group = ""
    for word in re.findall(r"`((?:--)?[\w.-]+)[^`]*`", cell):
        if word.startswith("--"):
            group = word.partition(".")[0]
            found.add(word)
        elif word.startswith("."):
            found.add(group + word)
    return found


def test_every_public_name_is_on_the_page_of_the_python_api():
    listed = re.findall(r"^\.\. auto\w+:: (\w+)", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert Counter(listed) == Counter(ice_ray.__all__)


def test_the_map_of_the_house_has_every_room_and_none_that_is_not_there():
    page = (ROOT / "CONTRIBUTING.md").read_text().partition("## Map of the house")[2].partition("How a run goes")[0]
    rooms = {path.name for path in (ROOT / "ice_ray").iterdir() if path.is_dir() and path.name != "__pycache__"}
    named = set(re.findall(r"(\w+)/", page)) - {"ice_ray", "jobs", "benchmarks", "docs", "tools", "tests"}
    assert named == rooms


def test_every_page_is_in_the_site_s_sidebar():
    sidebar = (DOCS / "conf.py").read_text().partition("SIDEBAR = {")[2].partition("}")[0]
    listed = [word for text in re.findall(r': "(.*)"', sidebar) for word in text.split()]
    assert sorted(name for name in listed if "../" not in name) == sorted(page.stem for page in DOCS.glob("*.md"))


@pytest.mark.parametrize(
    ("name", "page", "begins"),
    [
        ("the main job", "README.md", "pip install"),
        ("the tests", "README.md", "pip install"),
        ("the slow tests", "CONTRIBUTING.md", "uv run pytest -m slow"),
        ("the long tests", "CONTRIBUTING.md", "uv run pytest -m long"),
        ("the site", "CONTRIBUTING.md", "uv run --group docs sphinx-build"),
    ],
)
def test_ci_reads_its_commands_from_the_pages(name, page, begins):
    """By the function of .ci/run itself."""
    function = re.search(r"^command_named\(\).*?^\}", (ROOT / ".ci" / "run").read_text(), re.MULTILINE | re.DOTALL)
    assert function is not None and f'"{name}" {page}' in (ROOT / ".ci" / "run").read_text()
    called = ["bash", "-c", f'{function[0]}\ncommand_named "$1" "$2"', "bash", name, page]
    printed = subprocess.run(called, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.startswith(begins) and printed.count("\n") == 1
