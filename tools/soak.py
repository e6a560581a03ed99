"""Many short trials in one search: how the memory of its driver grows with them.

    python tools/soak.py --trials 500

scikit-learn's digits, a ResNet-8, a grid of so many points, none of which ever fine-tunes (theta is out of reach): what
a trial costs is what it costs Ray, Tune and the driver. `jobs/ice_search.py` as a user runs it. The driver's resident
memory is read from the system whenever another trial has ended; the slope is a least-squares line through the second
half of the trials, when all that is loaded once has been.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from common import RESULTS, arguments, command, machine, rules, table

_ENDED = re.compile(r"^ +trial-\d+ \((\d+)/", re.MULTILINE)


def space(trials: int) -> str:
    """A grid of at least so many points that all take the same course: a drop of 100 points comes to none of them.
    (With theta never they would be one point.)
    """
    side = math.ceil(math.sqrt(trials))
    rates = np.geomspace(0.01, 0.05, side).round(6).tolist()
    reductions = np.linspace(0.001, 0.008, side).round(6).tolist()
    return (
        f"accuracy_drop_threshold: [100.0]\nfrozen_fraction: [0.3]\nbase_learning_rate: {rates}\n"
        f"learning_rate_reduction: {reductions}\nmidpoint_pruned_share: [0.15]\nsteepness: [50]\n"
    )


def resident_kib(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)[0])


def soak(trials: int, folder: Path) -> list[tuple[int, int, float]]:
    """Run the search; returns (trials ended, KiB, seconds since it began) as they were seen."""
    (folder / "space.yaml").write_text(space(trials))
    asked = "--search.clock work --search.work-speed 1e9 --precision fp32 --search.subsample 0.1 --model cifar-resnet8"
    asked += " --criterion l1 --repair none --decision-error 0"
    points = ["--space", str(folder / "space.yaml"), "--search.trials", str(trials)]
    words = [sys.executable, str(ROOT / "jobs" / "ice_search.py"), *asked.split(), *points]
    began, seen = time.monotonic(), list[tuple[int, int, float]]()
    with (folder / "log").open("w") as log:
        own = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
        place = ["--storage", str(folder / "runs"), "--name", "soak"]
        process = subprocess.Popen([*words, *place], stdout=log, stderr=log, cwd=ROOT, env=own)
    while process.poll() is None:
        ended = max(map(int, _ENDED.findall((folder / "log").read_text())), default=0)
        if ended > (seen[-1][0] if seen else 0):
            seen.append((ended, resident_kib(process.pid), time.monotonic() - began))
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit((folder / "log").read_text()[-4000:])
    return seen


def page(seen: list[tuple[int, int, float]], trials: int) -> str:
    """The report in Markdown."""
    late = [(ended, kib) for ended, kib, _ in seen if ended >= trials / 2]
    slope = float(np.polyfit(*zip(*late, strict=True), 1)[0])
    marks = [
        next((each for each in seen if each[0] >= share * trials), seen[-1]) for share in (0.02, 0.25, 0.5, 0.75, 0.98)
    ]
    rows = [[str(ended), f"{kib / 1024:.0f}", f"{seconds:.0f}"] for ended, kib, seconds in marks]
    return f"""# Many trials in one search

`{command()}`

{rules(__doc__)}

{machine()}; the machine was shared with other work. One run.

**{slope:.0f} KiB of the driver's memory a trial** ({trials} trials).

{table([["trials ended", "driver's memory (MiB)", "seconds"], *rows])}
"""


def main() -> None:
    """Run the search and write the page."""
    parser = arguments(__doc__, RESULTS)
    parser.add_argument("--trials", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        seen = soak(options.trials, Path(folder))
    (options.results / "soak.md").write_text(page(seen, options.trials))


if __name__ == "__main__":
    main()
