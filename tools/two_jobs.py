"""Two jobs on one run at random offsets, in a folder and in a bucket: one is refused, the other is undisturbed.

    python tools/two_jobs.py --count 50 --seed 0

Jobs by their command lines, a ResNet-8 on the digits, on a Ray cluster of this machine; by turns in a folder and in a
bucket of moto's server. The first job is a search, or, where stage 2 is what matters, the replay of a finished one. The
second is a search, both stages or a replay, of another ratio or with `--resume`, and begins where the table says, after
a pause that is drawn. One job must end with exit code 2 and one line (or say that the run is finished, where it is);
what the other found (winner, trials, steps, every bit of the pruned model) is compared with a run that had nobody
beside it, and no claim may be left. Finished duels are kept below --work and not redone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / part) for part in ("benchmarks", "tests", "tests/faults", "tests/claims")]

from common import RESULTS, Ledger, Row, arguments, command, machine, rules, table
from duel import MOMENTS, Arena
from ground import Ground
from object_storage import new_server

from ice_ray.address import StoragePath, storage_path


def page(rows: list[Row]) -> str:
    """The report in Markdown."""
    body = []
    for moment in MOMENTS:
        for where in ("folder", "bucket"):
            own = [row for row in rows if (row["moment"], row["key"]["where"]) == (moment, where)]
            if own:
                pauses = [row["pause"] for row in own]
                refused = sum(2 in row["codes"] for row in own)
                told = sum(list(row["codes"]) == [0, 0] for row in own)
                equal = sum(not row["fault"] for row in own)
                offsets = f"{min(pauses):.1f} to {max(pauses):.1f}"
                body.append([moment, where, str(len(own)), offsets, str(refused), str(told), str(equal)])
    head = [
        "second job begins",
        "run in a",
        "duels",
        "pause (s)",
        "one refused",
        "told it is finished",
        "as it must be",
    ]
    faults = [f"- {row['moment']}: {row['fault'][:300]}" for row in rows if row["fault"]]
    good = sum(not row["fault"] for row in rows)
    return (
        f"""# Two jobs on one run

`{command()}`

{rules(__doc__)}

{machine()}. Other work had the machine too.

**{len(rows)} duels, {good} of them as it must be.**

{table([head, *body])}

{chr(10).join(faults)}
""".rstrip()
        + "\n"
    )


def duel(own: Arena, storage: StoragePath, name: str, moment: str, random: Random) -> Row:
    """One, as the table has it."""
    return asdict(own.fight(storage, name, moment, random))


def fight(ledger: Ledger, keys: list[Row]) -> None:
    """Those that are missing."""
    server, moments = new_server(), list(MOMENTS)
    os.environ.update(server.variables)  # before the cluster's processes begin
    with (
        tempfile.TemporaryDirectory(prefix="two-jobs-") as folder,
        server.running("bucket"),
        Ground.running() as ground,
    ):
        ground.have(1)
        own = Arena(Path(folder) / "arena", ground.address)
        for key in keys:
            number = int(key["duel"])
            moment, random = moments[number % len(moments)], Random(f"{key['seed']} {number}")
            storage = Path(folder) if key["where"] == "folder" else storage_path("s3://bucket/runs")
            ledger.once(key, partial(duel, own, storage, f"duel-{number}", moment, random))


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__, RESULTS)
    parser.add_argument("--count", type=int, default=50, help="how many duels")
    parser.add_argument("--seed", type=int, default=0, help="when")
    parser.add_argument("--at-most", type=int, default=1000, help="how many of those that are missing to run now")
    options = parser.parse_args()
    ledger = Ledger(options.work, "two_jobs")
    keys = [
        {"seed": options.seed, "duel": number, "where": ("folder", "bucket")[number // len(MOMENTS) % 2]}
        for number in range(options.count)
    ]
    missing = [key for key in keys if not any(row["key"] == key for row in ledger.rows)][: options.at_most]
    if missing:
        fight(ledger, missing)
    rows = [row for row in ledger.rows if row["key"] in keys]
    (options.results / "two_jobs.md").write_text(page(rows))


if __name__ == "__main__":
    main()
