"""Looks every pinned version up in the advisory database: python tools/audit.py, which needs uv and a network.

Writes benchmarks/results/audit.md; ends with 1 where there are findings, with 3 where the database could not be asked.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TOOL = "pip-audit==2.10.1"
PAGE = ROOT / "benchmarks" / "results" / "audit.md"


def pins() -> list[str]:
    """The exact version of every package, transitive ones included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return list(project["tool"]["uv"]["constraint-dependencies"])


def ask(wanted: list[str]) -> list[dict[str, Any]]:
    """What the database says of each; `skip_reason` where it says nothing."""
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "pins.txt"
        requirements.write_text("\n".join(wanted) + "\n")
        command = ["uvx", TOOL, "--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
        ended = subprocess.run([*command, "-r", str(requirements)], capture_output=True, text=True, check=False)
    try:
        return list(json.loads(ended.stdout)["dependencies"])
    except (ValueError, KeyError):
        return [{"name": pin, "skip_reason": "the tool failed"} for pin in wanted]


def page(answers: list[dict[str, Any]]) -> str:
    """The results, for people."""
    asked = [answer for answer in answers if "skip_reason" not in answer]
    findings = [(answer, found) for answer in asked for found in answer["vulns"]]
    lines = [
        "# Dependency audit",
        "",
        f"`python tools/audit.py`, {datetime.now(UTC):%Y-%m-%d}, {TOOL}: {len(answers)} pinned packages, "
        f"{len(asked)} answered for, {len(findings)} findings.",
        "",
    ]
    if not asked:
        lines += ["The advisory database could not be reached from the machine this was run on: nothing is known.", ""]
    lines += [
        f"- {answer['name']} {answer['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'none'}"
        for answer, found in findings
    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Ask, write, sum up."""
    answers = ask(pins())
    PAGE.write_text(page(answers))
    print(PAGE.read_text())
    if any(answer.get("vulns") for answer in answers):
        return 1
    return 0 if all("skip_reason" not in answer for answer in answers) else 3


if __name__ == "__main__":
    raise SystemExit(main())
