"""Write docs/options.md: every option of every job, from what `--help-all` prints.

python tools/options_page.py
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from ice_ray.config.command_line import parse
from ice_ray.config.jobs import ExportConfig, InspectConfig, ReplayJobConfig, ReportConfig
from ice_ray.config.run import RunConfig
from ice_ray.pipelines.registry import PIPELINES

PAGE = Path(__file__).parent.parent / "docs" / "options.md"
HEAD = """# Options

This page is written by `python tools/options_page.py` from what `--help-all` prints; do not edit it. In a checkout,
`python jobs/ice_prune.py` stands for `ice-ray prune`, and likewise for the other jobs. `ice-ray prune --help` is two
screens, `--help-all` is this page. A switch `--x` is turned off by `--no-x`; one in a group, `--group.x`, by
`--group.no-x`. Words such as theta and PT are explained in [words](words.md).
"""
_SEARCH = """## ice-ray search

Stage 1 alone: search the hyperparameters. It takes the options of `ice-ray prune`; those of stage 2 are kept with the
run, for its replay.
"""
_REPLAY = """
Besides, it takes the options of `ice-ray prune` that are the pipeline's, and those that begin with `--replay`,
`--fine-tune` and `--final`. Without them the search's own hold."""
_ITS_OWN = re.compile(
    r"--(resume|log-to|export|name|target|verbose|wait-for-resources)\b"
)  # of a replay, though a search has them too


@dataclass
class Group:
    """A titled part of a help text: its sentence, and its options with what is said of each."""

    title: str
    about: str = ""
    options: dict[str, str] = field(default_factory=dict)


def printed(kind: type[Any], *arguments: str) -> str:
    """What the job prints as its help in full."""
    out = io.StringIO()
    wide = mock.patch.dict(os.environ, COLUMNS="120")
    with wide, contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        parse(kind, [*arguments, "--help-all" if kind is RunConfig else "--help"], "ice-ray")
    return out.getvalue()


def read(text: str) -> tuple[str, list[Group]]:
    """What a help text says of the job, and its groups of options; `--help` itself is left out."""
    usage_and_about, indented = re.split(r"^(?= )", text, maxsplit=1, flags=re.MULTILINE)
    groups: list[Group] = []
    option = None
    for line in indented.splitlines():
        words = line.strip()
        if not words or words.startswith("-----"):
            continue
        if re.match(r" \S", line):
            groups.append(Group(words))
            option = None
        elif re.match(r"  (-|STR|\[)", line):
            typed, _, said = words.partition("  ")
            option = re.sub(r"\{None\}\||(?<=\{)None,|, --(\S+\.)?no-\S+$", "", typed)
            groups[-1].options[option] = said.strip()
        elif option is None:
            groups[-1].about = f"{groups[-1].about} {words}".strip()
        else:
            groups[-1].options[option] = f"{groups[-1].options[option]} {words}".strip()
    for group in groups:
        group.options.pop("-h, --help", None)
    return usage_and_about.partition("\n\n")[2].strip(), [group for group in groups if group.options]


def table(options: dict[str, str]) -> str:
    """A row for every option: how it is typed, what it is, what holds without it."""
    rows = ["| option | what it is | without it |", "|---|---|---|"]
    for option, said in options.items():
        words, without = _default(said)
        rows.append("| " + " | ".join(_cell(each) for each in (f"`{option}`", words, without)) + " |")
    return "\n".join(rows) + "\n"


def _default(said: str) -> tuple[str, str]:
    """The text without its default, and the default: the words for it where there are some, before the value."""
    given = re.search(r" ?\((required|default: (.*))\)$", said)
    words = said[: given.start()] if given else said
    if told := re.search(r" ?\[default: (.*?)\]", words):
        return words.replace(told[0], ""), told[1]
    if given is None:
        return words, ""
    if given[2] is None:
        return words, "must be given"
    return words, {"": "none", "None": "none", "True": "on", "False": "off"}.get(given[2], given[2])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def sections(groups: list[Group], of: str, known: Collection[str] = ()) -> Iterator[str]:
    """A table for every group, without the options that are known."""
    for group in groups:
        options = {option: said for option, said in group.options.items() if option not in known}
        if not options:
            continue
        if group.title.endswith(" options"):
            yield f"### `--{group.title.removesuffix(' options')}.*` of {of}\n"
        if group.about:
            yield f"{group.about}\n"
        yield table(options)


def page() -> str:
    """The whole page, as it should be now."""
    about, groups = read(printed(RunConfig))
    parts = [HEAD, f"## ice-ray prune\n\n{about}\n", *sections(groups, "prune")]
    known = {option for group in groups for option in group.options}
    owners: dict[str, list[str]] = {}
    for pipeline in PIPELINES:
        others = [group.options for group in read(printed(RunConfig, "--pipeline", pipeline))[1]]
        own = {option: said for options in others for option, said in options.items() if option not in known}
        if own:
            owners.setdefault(table(own), []).append(f"`{pipeline}`")
    for rows, pipelines in owners.items():
        parts += [f"### Of `--pipeline` {' and '.join(pipelines)} alone\n", rows]
    about, groups = read(printed(ReplayJobConfig))
    known = {option for option in known if not _ITS_OWN.match(option)}
    parts += [_SEARCH, f"## ice-ray replay\n\n{about}\n{_REPLAY}\n", *sections(groups, "replay", known)]
    for name, kind in {"inspect": InspectConfig, "export": ExportConfig, "report": ReportConfig}.items():
        about, groups = read(printed(kind))
        parts += [f"## ice-ray {name}\n\n{about}\n", *sections(groups, name)]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
