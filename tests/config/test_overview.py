"""`--help`: two screens, every option once, with its unit and the default that holds."""

import itertools
import re
import subprocess
import sys
from collections import Counter

import pytest
from test_command_line import ROOT, all_options, printed_help

from ice_ray.config.command_line import parse
from ice_ray.config.overview import OptionLine, entries, overview
from ice_ray.config.run import RunConfig, default_run
from ice_ray.pipelines.registry import PIPELINES

OPTIONS = [entry for entry in entries(RunConfig()) if isinstance(entry, OptionLine)]
SYMBOLS = ("theta", "eta", "LR_base", "LR_max", "Delta", "p", "beta", "alpha", "PT", "dA")


def positive(option: str) -> str:
    return option.replace("--no-", "--").replace(".no-", ".")


def test_two_screens_of_120_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    lines = printed_help(capsys, "--help").splitlines()
    assert len(lines) <= 100
    assert max(map(len, lines)) <= 120


def test_every_option_once_by_group_and_none_that_is_not_there():
    assert Counter(positive(line.option) for line in OPTIONS) == Counter(all_options(RunConfig()).keys())
    assert sum(isinstance(entry, str) for entry in entries(RunConfig())) == 7


def test_a_value_has_a_unit_or_a_name_and_a_switch_has_none():
    for line in OPTIONS:
        is_switch = isinstance(all_options(RunConfig())[positive(line.option)], bool)
        assert bool(line.value) != is_switch, line.option


def test_every_symbol_of_the_paper_is_somewhere():
    words = set(re.findall(r"\w+", " ".join(line.text for line in OPTIONS)))
    assert set(SYMBOLS) <= words


@pytest.mark.parametrize("pipeline", [*PIPELINES, "examples.pipeline:EveryFewSteps"])
def test_the_options_of_a_pipeline_are_in_its_help_and_no_others(pipeline):
    config = default_run(pipeline)
    lines = [entry for entry in entries(config) if isinstance(entry, OptionLine)]
    assert Counter(positive(line.option) for line in lines) == Counter(all_options(config).keys())
    assert all(line.text for line in lines)


def test_what_is_typed_is_what_is_taken():
    """A switch as the overview spells it changes what it is said to."""
    for line in OPTIONS:
        if not line.value and line.option != "--resume":  # which needs a name beside it
            name = positive(line.option)
            assert all_options(parse(RunConfig, [line.option], "p"))[name] != all_options(RunConfig())[name]


@pytest.mark.parametrize(
    ("given", "option", "default"),
    [
        ("", "--batch-size IMAGES", "128"),
        ("", "--search.subsample SHARE", "0.1 (baseline, aap 0.02), digits 0.5"),
        ("", "--fine-tune.no-distil", "off"),
        ("", "--mean R G B", "0.485 0.456 0.406"),
        ("", "--log-to NAME..", "none"),
        ("--preset paper-tinyimagenet", "--fine-tune.no-distil", "on"),
        ("--preset paper-tinyimagenet", "--search.subsample SHARE", "0.002"),
        ("", "--criterion NAME", "residual"),
        ("--preset paper-cifar10", "--criterion NAME", "l1"),
        ("--pipeline one-shot", "--criterion NAME", "l1"),
        ("--pipeline examples.pipeline:EveryFewSteps", "--every VALUE", "2"),
    ],
)
def test_defaults_are_those_that_hold_beside_the_options_given(capsys, given, option, default):
    text = re.sub(r"\n {20,}", " ", printed_help(capsys, *given.split(), "--help"))
    (line,) = [line for line in text.splitlines() if line.split("  ")[1:2] == [option]]
    assert line.endswith(f" [{default}]")


def test_a_narrow_terminal_breaks_lines_and_loses_none(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    text = overview("p", RunConfig())
    assert max(map(len, text.splitlines())) <= 60
    words = re.findall(r"\S+", text)
    assert [line.option for line in OPTIONS if line.option not in words] == []


def test_the_help_in_full_has_filled_paragraphs(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    lines = printed_help(capsys, "--help-all").splitlines()
    assert max(len(line) for line in lines if line.startswith(" " * 8)) <= 100
    for line, after in itertools.pairwise(lines):
        if line.startswith(" " * 8) and after.startswith(" " * 8):
            assert len(line) + 1 + len(after.split()[0]) > 100, "the next word had room there"
    assert not [line for line in lines if "{None}" in line]
    paragraphs = " ".join(line.strip() for line in lines).split(" --")
    assert not [each for each in paragraphs if "[default:" in each and "(default: None)" in each]


def test_the_job_prints_it_and_all(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    program = [sys.executable, str(ROOT / "jobs" / "ice_prune.py")]
    short = subprocess.run([*program, "--help"], capture_output=True, text=True, check=True).stdout
    assert short.strip() == overview("ice_prune.py", RunConfig())
    full = subprocess.run([*program, "--help-all"], capture_output=True, text=True, check=True).stdout
    assert len(full.splitlines()) > 2 * len(short.splitlines())
