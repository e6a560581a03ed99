"""`--help` on two screens: a line for every option, with its unit and its default; and tyro's own, in full."""

from __future__ import annotations

import ast
import inspect
import itertools
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from ice_ray.config.option_words import yes_or_no
from ice_ray.config.run import RunConfig, flat_options

_WIDTH, _TEXT = 120, 38
_HELP = " " * 8  # what tyro begins a line of an option's text with


@dataclass(frozen=True)
class OptionLine:
    """A line of overview.txt.

    Attributes:
        option: as it is typed, `--no-` included.
        value: what follows it; nothing for a switch.
        text: what it is.
        unset: what holds where it has no value of its own.
    """

    option: str
    value: str
    text: str
    unset: str

    def default(self, values: Mapping[str, Any]) -> str:
        """In words, where the options are at `values`."""
        group, dot, own = self.option.removeprefix("--").rpartition(".")
        value = values.get(group + dot + own)
        if own.startswith("no-") and f"{group}{dot}{own}" not in values:
            value = not values[group + dot + own.removeprefix("no-")]
        if value is None or value == []:
            return self.unset
        if isinstance(value, bool):
            return ("on" if value else "off") if self.value == "" else yes_or_no(value)
        words = value if isinstance(value, list) else [value]
        return " ".join(f"{word:g}" if isinstance(word, float) else str(word) for word in words)


def overview(program: str, config: RunConfig[Any]) -> str:
    """Every option of such a run by group, with the defaults of `config`, as wide as the terminal allows."""
    width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 0)).columns)
    values = flat_options(config.as_dict())
    lines = textwrap.wrap(
        f"usage: {program} [OPTIONS]; in [] what holds without an option; --help-all says more of each", width
    )
    for entry in entries(config):
        if isinstance(entry, str):
            lines.append(entry)
            continue
        head = f"  {entry.option} {entry.value}".rstrip().ljust(_TEXT - 1)
        told = f"{head} {entry.text} [{entry.default(values)}]"
        indent = " " * min(_TEXT, width // 3)
        lines += textwrap.wrap(told, width, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(lines)


def entries(config: RunConfig[Any]) -> Iterator[str | OptionLine]:
    """Headings and options: those of overview.txt that such a run has, in order; then those of a user's own pipeline,
    with the first sentence of their docstrings.
    """
    left = flat_options(config.as_dict())
    text = (resources.files("ice_ray.config") / "overview.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("--"):
            head, told, *unset = (part.strip() for part in line.split("|"))
            option, _, value = head.partition(" ")
            known = [name for name in (option[2:], option[2:].replace("no-", "", 1)) if name in left]
            if known:
                del left[known[0]]
                yield OptionLine(option, value, told, unset[0] if unset else "")
        elif not line.startswith("#"):
            yield line
    if left:
        yield f"Of pipeline {config.pipeline}"
    for option, value in left.items():
        told = _first_sentence(_docstring(config.options, option.replace("-", "_").split(".")))
        yield OptionLine(f"--{option}", "" if isinstance(value, bool) else "VALUE", told, "none")


def _docstring(settings: Any, path: Sequence[str]) -> str:
    """What stands below a field of a settings object, or of one within it."""
    *groups, name = path
    for group in groups:
        settings = getattr(settings, group)
    owner = next(kind for kind in type(settings).__mro__ if name in vars(kind).get("__annotations__", {}))
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(definition, ast.ClassDef)
    for field, below in itertools.pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and ast.unparse(field.target) == name and isinstance(below, ast.Expr):
            return str(ast.literal_eval(below.value))
    return ""


def _first_sentence(text: str) -> str:
    return " ".join(text.split()).partition(". ")[0].removesuffix(".")


def filled(full: str) -> str:
    """tyro's help with its paragraphs filled anew: it keeps the line breaks of docstrings, and breaks between them too.
    A default that is told in words is not told again as None.
    """
    width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 0)).columns)
    lines: list[str] = []
    paragraph: list[str] = []
    for line in [*full.splitlines(), ""]:
        if line.startswith(_HELP):
            paragraph.append(line.strip())
            continue
        if paragraph:
            text = " ".join(paragraph)
            text = text.replace(" (default: None)", "") if "[default:" in text else text
            lines += textwrap.wrap(text, width, initial_indent=_HELP, subsequent_indent=_HELP, break_on_hyphens=False)
            paragraph.clear()
        lines.append(line.replace("{None}|", "").rstrip())
    return "\n".join(lines)
