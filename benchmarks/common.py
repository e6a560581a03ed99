"""What the benchmarks and the tools share: options, finished runs that are not redone, tables, a page's head."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
WORK = Path("runs/benchmarks")
Row = dict[str, Any]


def arguments(description: str | None, results: Path = WORK) -> argparse.ArgumentParser:
    """The options that every script has; `results`: where its page goes unless it is told otherwise."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK, help="folder of finished runs")
    parser.add_argument("--results", type=Path, default=results, help="folder that the page is written to")
    return parser


class Ledger:
    """Finished runs, a JSON line each, so that an interrupted script goes on where it was.

    Args:
        work: folder of the ledgers.
        name: of the script.
        published: a file of runs that were finished elsewhere; where one of them is here as well, ours counts.

    Attributes:
        rows: of this kind of machine; seconds of unlike ones do not compare.
        unlike: the published rows of others.
    """

    def __init__(self, work: Path, name: str, published: Path | None = None) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self._path = work / f"{name}.jsonl"
        here, elsewhere = machine(), self._read(published)
        self.rows = [row for row in self._read(self._path) if row["machine"] == here]
        own = [row["key"] for row in self.rows]
        self.rows += [row for row in elsewhere if row["key"] not in own and row["machine"] == here]
        self.unlike = [row for row in elsewhere if row["machine"] != here]
        if self.unlike:
            others = "; ".join(sorted({row["machine"] for row in self.unlike}))
            print(f"here: {here}; what is published is of: {others}, and does not count here")

    @staticmethod
    def _read(path: Path | None) -> list[Row]:
        return [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []

    def once(self, key: Mapping[str, Any], run: Callable[[], Row]) -> Row:
        """The row of that key; run only where there is none yet."""
        found = next((row for row in self.rows if row["key"] == dict(key)), None)
        if found is None:
            found = {"key": dict(key), "machine": machine(), **run()}
            self.rows.append(found)
            with self._path.open("a") as file:
                file.write(json.dumps(found) + "\n")
            print(json.dumps({name: value for name, value in found.items() if name != "steps"}), flush=True)
        return found


def run_job(job: str, words: Sequence[str], storage: Path, name: str) -> Path:
    """The folder of a run of one of `jobs/`; run where it is not finished, gone on with where it was interrupted."""
    storage.mkdir(parents=True, exist_ok=True)
    folder = storage / name
    if not (folder / "summary.json").is_file():
        resume = ["--resume"] if (folder / "run.json").is_file() else []
        place = ["--storage", str(storage), "--name", name, *resume]
        subprocess.run([sys.executable, str(ROOT / "jobs" / job), *words, *place], check=True, cwd=ROOT)
    return folder


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first row its head."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean, and standard deviation where there is more than one."""
    text = f"{statistics.mean(values):.{digits}f}"
    return text + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def write_page(folder: Path, name: str, text: str) -> None:
    """The page, and a line that says where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    print(f"written: {folder / name}")


def rules(doc: str | None) -> str:
    """What a script's docstring says behind its command: the page says it too."""
    return (doc or "").split("    python", 1)[1].split("\n", 2)[2].strip()


def command() -> str:
    """The command line as given, for the page, but for where this machine keeps its files."""
    script, given = Path(sys.argv[0]).resolve(), iter(sys.argv[1:])
    said = ["python", f"{script.parent.name}/{script.name}"]
    for word in given:
        if word in _PLACES:
            next(given, None)
        elif not word.startswith(tuple(f"{place}=" for place in _PLACES)):
            said.append(word)
    return " ".join(said)


_PLACES = ("--shared", "--data", "--weights", "--work", "--results", "--from", "--page")


def machine() -> str:
    """Hardware and versions in one line; machines with the same line should be about as fast."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    features = torch.cpu.get_capabilities()
    processor, instructions = features.get("cpu_name", "CPU"), torch.backends.cpu.get_cpu_capability()
    bf16 = ", bf16" if features.get("avx512_bf16") or features.get("amx_bf16") else ""
    return (
        f"{os.cpu_count()} CPU cores ({processor}, {instructions}{bf16}), {gpu}; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
