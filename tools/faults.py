"""Faults inflicted on real jobs at random moments, and whether the jobs ended as if nothing had been.

    python tools/faults.py --count 50 --seed 0

A ResNet-14 on real images (2,400 of CIFAR-10, JPEG in parquet, at 16 pixels), searches of four trials and replays of
two workers by their command lines, on a cluster of real Ray processes on this machine. Of every kind of fault there are
as many as of any other, up to five in one job. What each job found (records of all trials, winner and front; steps,
accuracies and every bit of the pruned model) is compared with one run that suffered nothing. Seconds to recover: from
the end of the fault until the job came one action record or pruning step further, the start of the job included where
it was killed; 0 where other trials had gone forward before the fault was over. Finished jobs are kept below --work and
not redone.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from random import Random

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "faults")]

from common import RESULTS, Ledger, Row, arguments, command, machine, rules, table
from ground import Ground
from kinds import KINDS, may_mount
from material import Material
from suffering import Suffered, Undisturbed, drawn, suffer


def row_of(each: Suffered) -> Row:
    """A fault as the table has it."""
    figures = {"at": each.at, "of": each.of, "seconds": each.seconds}
    return {"kind": each.kind.name, **figures, "equal": not each.difference, "counted": each.counted}


def page(rows: list[Row]) -> str:
    """The report in Markdown."""
    head = ["fault", "inflicted", "result equal", "counted by the job", "seconds to recover: median, range"]
    body = []
    for name in [kind.name for kind in KINDS]:
        own = [row for row in rows if row["kind"] == name]
        if own:
            seconds = [row["seconds"] for row in own if not math.isnan(row["seconds"])] or [math.nan]
            spread = f"{statistics.median(seconds):.1f} [{min(seconds):.1f}, {max(seconds):.1f}]"
            body.append(
                [name, str(len(own)), *(str(sum(row[what] for row in own)) for what in ("equal", "counted")), spread]
            )
    equal = sum(row["equal"] for row in rows)
    return f"""# Faults survived

`{command()}`

{rules(__doc__)}

{machine()}. Other work had the machine too, so the seconds are upper bounds.

**{len(rows)} faults, {equal} of them followed by a result equal to the undisturbed one.**

{table([head, *body])}
"""


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__, RESULTS)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with datasets/")
    parser.add_argument("--count", type=int, default=50, help="how many faults")
    parser.add_argument("--seed", type=int, default=0, help="which, and when")
    options = parser.parse_args()
    ledger = Ledger(options.work, "faults")
    jobs = drawn(options.count, Random(options.seed))
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, Ground.running() as ground:
        place = Path(folder)
        material = Material.make(place / "material", options.shared.resolve())
        undisturbed = Undisturbed.run(ground, material, place)

        def inflict(number: int) -> Row:
            random = Random(f"{options.seed} {number}")
            kinds = [kind for kind in jobs[number] if not kind.small or may_mount()]
            try:
                suffered = suffer(kinds, ground, material, undisturbed, place / f"job-{number}", random)
            except AssertionError as fault:
                suffered = [Suffered(kind, 0, 0, math.nan, False, str(fault)) for kind in kinds]
            for difference in {each.difference for each in suffered}:
                print(difference, end="", file=sys.stderr)
            return {"faults": [row_of(each) for each in suffered]}

        keys = [{"count": options.count, "seed": options.seed, "job": number} for number in range(len(jobs))]
        rows = [ledger.once(key, partial(inflict, key["job"])) for key in keys]
    (options.results / f"faults-seed{options.seed}.md").write_text(
        page([each for row in rows for each in row["faults"]])
    )


if __name__ == "__main__":
    main()
