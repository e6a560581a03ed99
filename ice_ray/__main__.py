"""The console command: `ice-ray prune`, or `python -m ice_ray prune`; the scripts of `jobs/` call the same.

Imports a job once its options have been read: torch and Ray take seconds, `--help` and a wrong word must not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ice_ray.invocation import CONSOLE, program

# What each does, in a line; its job, and what its options describe.
_COMMANDS = {
    "prune": (
        "make a trained model smaller: search the hyperparameters, replay the winner on all the data",
        "workflow.jobs:prune_job",
        "config.run:RunConfig",
    ),
    "search": ("stage 1 alone: search the hyperparameters", "workflow.jobs:search_job", "config.run:RunConfig"),
    "replay": (
        "stage 2 alone: replay a search's winner, or any of its trials",
        "workflow.jobs:replay_job",
        "config.jobs:ReplayJobConfig",
    ),
    "inspect": (
        "show what can be pruned in a model, and what would be left; trains nothing",
        "workflow.inspection:inspect_job",
        "config.jobs:InspectConfig",
    ),
    "report": (
        "write report.html of a run anew; of several runs a comparison too",
        "workflow.reporting:report_job",
        "config.jobs:ReportConfig",
    ),
    "export": (
        "write a pruned model as ONNX or as an exported program of PyTorch",
        "workflow.exporting:export_job",
        "config.jobs:ExportConfig",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 (the run could not go on) or 2 (wrong input).

    Args:
        arguments: the command and its options. [default: those of this process]
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        _tell(_usage())
        return 0
    if words[0] in ("-V", "--version"):
        from ice_ray import __version__

        _tell(f"{CONSOLE} {__version__}")
        return 0
    command, *options = words
    if command not in _COMMANDS:
        print(f"{CONSOLE}: {_no_command(command)}; see {CONSOLE} --help", file=sys.stderr)
        return 2
    _, job, config = _COMMANDS[command]
    from ice_ray.workflow.running import run

    return run(lambda asked: _named(job)(asked), _named(config), program(command), options)


def _usage() -> str:
    width = max(map(len, _COMMANDS))
    return "\n".join(
        [
            f"usage: {CONSOLE} COMMAND [OPTIONS]",
            "",
            "Physically smaller PyTorch vision models, from a trained one, its images and a budget.",
            "",
            *(f"  {command:<{width}}  {does}" for command, (does, *_) in _COMMANDS.items()),
            "",
            f"{CONSOLE} COMMAND --help shows the options of a command, {CONSOLE} --version the version.",
            f"To see it work, without data or a model of your own: {CONSOLE} prune",
        ]
    )


def _tell(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # nobody reads on, as in `ice-ray | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _no_command(word: str) -> str:
    from ice_ray.errors import in_one_line, nearest

    if word.startswith("-"):
        return f"the command comes first, then its options such as {in_one_line(word)}"
    return in_one_line(f"unknown command '{word}' ({nearest(word, list(_COMMANDS))})")


def _named(path: str) -> Any:
    """A job, or the class of its options."""
    module, _, name = path.partition(":")
    return getattr(import_module(f"ice_ray.{module}"), name)


if __name__ == "__main__":
    raise SystemExit(main())
