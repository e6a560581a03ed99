"""Pipelines and their parts compared, every run by the job's own command line.

    python benchmarks/compare.py methods|parts|repaired [--ratios 0.6 0.7 0.8] [--seeds 0 1 2]

`methods` (the paper's Table III): ICE-Pruning as published, `ice` as it is by default, always fine-tuning, one-shot
pruning, AAP and IMP. `parts` (Table II): ICE as published without its threshold, its freezing, its scheduler, and
combinations. `repaired`: ICE as published with repairs, and repairs alone. ResNet-20, CIFAR-10, --train-share of the
training images in stage 2, an epoch per fine-tune. Each row is `jobs/ice_prune.py` with the options that the second
table shows: stage 1 finds the hyperparameters by validation images, stage 2 replays the winner in one process, and the
accuracy is of the half of the test images that nothing has decided by. Rows that differ from `ice, as published` in one
part alone have its hyperparameters. A ratio is a share of the filters in `ice`, `baseline` and `one-shot`; IMP ranks
them over all layers, and for AAP it is an upper bound of the parameters: compare by the parameters and multiply-adds
that are left. Seconds are stage 2's pruning time (PT) and the search's, on the wall's clock: measure on a machine that
does nothing else. Finished runs are kept below --work and not redone, interrupted ones gone on with.
"""

from __future__ import annotations

import itertools
import json
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import yaml
from common import Row, arguments, command, machine, rules, run_job, spread, table, write_page


@dataclass(frozen=True)
class Contestant:
    """A row of the table.

    Attributes:
        options: of the job.
        tuned_as: whose hyperparameters it has; its own search's where that is empty.
    """

    name: str
    options: str
    tuned_as: str = ""


PUBLISHED = "--criterion l1 --calibration-images 1000 --repair none --decision-error 0"
ICE = Contestant(
    "ice, as published",
    f"{PUBLISHED} --space paper-cifar10 --search.trials 6 --search.subsample 0.02 --search.objective auto",
)
BASELINE = Contestant("baseline", "--pipeline baseline")
DEFAULT = Contestant("ice", "")
PARTS = ("threshold", "freezing", "scheduler")
CLOSED_FORM = "--space no-training --repair least-squares"
TABLES = {
    "methods": (
        BASELINE,
        ICE,
        DEFAULT,
        Contestant("one-shot", "--pipeline one-shot"),
        Contestant("aap", "--pipeline aap --search.trials 6"),
        Contestant("imp", "--pipeline imp --search.trials 6"),
    ),
    "parts": (
        ICE,
        *(
            Contestant(
                f"without {' and '.join(parts)}", " ".join((PUBLISHED, *(f"--no-{each}" for each in parts))), ICE.name
            )
            for count in (1, 2, 3)
            for parts in itertools.combinations(PARTS, count)
        ),
    ),
    "repaired": (
        BASELINE,
        ICE,
        *(
            Contestant(f"ice, as published, {repair}", PUBLISHED.replace("none", repair), ICE.name)
            for repair in ("bn", "least-squares")
        ),
        *(Contestant(f"least squares, {n} images", f"{CLOSED_FORM} --calibration-images {n}") for n in (400, 1000)),
        *(
            Contestant(f"reconstruction, {n} images", f"--space no-training --calibration-images {n}")
            for n in (250, 500, 1000, 2000)
        ),
        DEFAULT,
    ),
}
PAPER = {
    "methods": "The paper (ResNet-152, CIFAR-10, Table III): ICE-Pruning is 1.95 times as fast as the baseline at 60%, "
    "1.17 times at 80%, and 2.53 and 2.67 times as fast as AAP, at -0.1 to +0.3 points of their accuracy.",
    "parts": "The paper (section V): the threshold saves up to 56.4% of the pruning time, freezing 10.8%, "
    "the scheduler 11.7%.",
    "repaired": "The paper has no repairs.",
}


def run(own: Contestant, options: Namespace, ratio: float, seed: int) -> Row:
    """The job's summary, with what its search took."""
    work = options.work.resolve() / "compare"
    words = [
        *("--model", options.model, "--weights", str(options.weights.resolve())),
        *("--data", f"parquet:{options.data.resolve()}", "--ratio", str(ratio), "--seed", str(seed)),
        *("--replay.subsample", str(options.train_share), "--replay.workers", "1", "--search.eval-images", "1000"),
        *own.options.split(),
    ]
    if own.tuned_as:
        found = run(ICE, options, ratio, seed)["hyperparameters"]
        space = work / f"point-{options.model}-{ratio:g}-{options.train_share:g}-{seed}.yaml"
        space.write_text(yaml.safe_dump(found))
        words += ["--space", str(space)]
    name = "-".join((options.model, f"{options.train_share:g}", f"{ratio:g}", str(seed), own.name)).replace(", ", "-")
    folder = run_job("ice_prune.py", words, work, name.replace(" ", "-"))
    search = json.loads((folder / "best.json").read_text())["seconds"]["stage 1: trials"]
    summary: Row = json.loads((folder / "summary.json").read_text())
    return summary | {"search_seconds": search}


def line(own: Contestant, ratio: float, rows: list[Row], base: list[Row]) -> list[str]:
    """What came of it, over seeds; `base`: the same of the first contestant."""
    seconds = [row["replay_pruning_seconds"] for row in rows]
    faster = sum(row["replay_pruning_seconds"] for row in base) / sum(seconds)
    left = [spread([row["pruned"][of] / row["dense"][of] for row in rows]) for of in ("parameters", "multiply_adds")]
    return [
        f"{ratio:.0%}",
        f"`{own.name}`",
        spread([row["pruned"]["test_accuracy"] for row in rows]),
        *left,
        spread([sum(step["fine_tuned"] for step in row["steps"]) for row in rows], 1),
        spread(seconds, 1),
        f"{faster:.2f}x",
        spread([row["search_seconds"] for row in rows], 0),
    ]


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--model", choices=("cifar-resnet20", "cifar-resnet56"), default="cifar-resnet20")
    parser.add_argument("--data", type=Path, default=Path("data/cifar10"), help="folder of CIFAR-10 as parquet")
    parser.add_argument("--weights", type=Path, default=Path("data/resnet20-12fca82f.th"))
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.6, 0.7, 0.8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train-share", type=float, default=0.1, help="of the 50,000 training images, in stage 2")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these, beside the first")
    options = parser.parse_args()
    first, *rest = TABLES[options.table]
    contestants = [first, *(own for own in rest if options.rows is None or own.name in options.rows)]
    head = ["ratio", "", "test images, %", "parameters left", "multiply-adds left", "fine-tunes", "PT, s"]
    lines, chosen = [[*head, f"PT against {first.name}", "search, s"]], [["", "options", "hyperparameters (last run)"]]
    for ratio in options.ratios:
        found = {own: [run(own, options, ratio, seed) for seed in options.seeds] for own in contestants}
        lines += [line(own, ratio, rows, found[first]) for own, rows in found.items()]
    for own, rows in found.items():
        point = ", ".join(f"{name} {value}" for name, value in rows[-1]["hyperparameters"].items())
        chosen.append([f"`{own.name}`", f"`{own.options}`" if own.options else "", point])
    dense = rows[-1]["dense"]
    page = f"compare-{options.table}-{options.model}.md"
    write_page(
        options.results,
        page,
        f"""# Compared: {options.table}

`{command()}`

{rules(__doc__)}

{machine()}; seeds {options.seeds}; dense: {dense["test_accuracy"]:.2f}% of the test images,
{dense["parameters"]:,} parameters, {dense["multiply_adds"]:,} multiply-adds.

{table(lines)}

{PAPER[options.table]}

{table(chosen)}
""",
    )


if __name__ == "__main__":
    main()
