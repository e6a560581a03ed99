"""ICE-Pruning as published, as a user runs it, beside what the paper's own program does on the same images.

    python benchmarks/main_job.py [--seeds 0 1 2]

ResNet-20, CIFAR-10, 60% of the filters of every block; six trials on 2% of the training images, then the replay on all
of them by two workers: `jobs/ice_prune.py` once per seed. One epoch per fine-tune, no final epochs, last weights. One
half of the test split decides, the other half is read once at the end; the whole split, both halves together, is given
for comparison with programs that use it for everything. Finished seeds are kept below --work and not run again.
"""

from __future__ import annotations

import json
from pathlib import Path

from common import Row, arguments, command, machine, rules, run_job, table, write_page

# The paper's program on CIFAR-10 as JPEG (which costs a trained network about four points), two cores, its own choice
# among six seeded points of its grid: accuracy on the whole test split after each of the nine steps, and seconds.
PROGRAM, PROGRAM_SECONDS = (87.5, 85.8, 84.7, 81.7, 80.8, 79.2, 75.2, 71.9, 69.4), "240 + 1,612"
OPTIONS = (
    "--model cifar-resnet20 --ratio 0.6 --space paper-cifar10 --criterion l1 --repair none --decision-error 0 "
    "--search.trials 6 --search.subsample 0.02 --search.objective auto --replay.workers 2"
)


def whole_split(own: Row) -> float:
    """Accuracy on both halves together, percent."""
    right = sum(own[f"{half}_accuracy"] * own[f"{half}_images"] for half in ("validation", "test"))
    return float(right / (own["validation_images"] + own["test_images"]))


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/cifar10"), help="folder of CIFAR-10 as parquet")
    parser.add_argument("--weights", type=Path, default=Path("data/resnet20-12fca82f.th"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train-share", type=float, default=1.0, help="of the training images in stage 2; less to try")
    options = parser.parse_args()
    outcome = [["seed", "winner", "dense", "validation images", "test images", "whole split", "all stages, s"]]
    steps = [["after step", *map(str, range(1, 10))], ["the paper's program", *(f"{each:.1f}" for each in PROGRAM)]]
    times: dict[str, list[str]] = {}
    for seed in options.seeds:
        places = ["--weights", str(options.weights.resolve()), "--data", f"parquet:{options.data.resolve()}"]
        words = [*OPTIONS.split(), *places, "--seed", str(seed), "--replay.subsample", f"{options.train_share:g}"]
        name = f"seed{seed}-{options.train_share:g}"
        folder = run_job("ice_prune.py", words, options.work.resolve() / "main_job", name)
        summary = json.loads((folder / "summary.json").read_text())
        pruned, seconds = summary["pruned"], summary["seconds"]
        accuracies = [whole_split(summary["dense"]), pruned["validation_accuracy"], pruned["test_accuracy"]]
        accuracies.append(whole_split(pruned))
        apart = sum(each for part, each in seconds.items() if not part.startswith("stage 2, "))
        winner = ", ".join(f"{each:g}" for each in list(summary["hyperparameters"].values())[:6])
        outcome.append([str(seed), winner, *(f"{each:.2f}" for each in accuracies), f"{apart:.0f}"])
        steps.append([f"seed {seed}", *(f"{step['accuracy']:.1f}" for step in summary["steps"])])
        for part, each in seconds.items():
            times.setdefault(part, []).append(f"{each:.1f}")
    sizes = summary["dense"], pruned
    write_page(
        options.results,
        "main_job.md",
        f"""# The main job on CIFAR-10

`{command()}`

{rules(__doc__)}

The job: `python jobs/ice_prune.py {OPTIONS}`.

{machine()}; arithmetic in {summary["precision"]}; {", ".join(f"{k} {v}" for k, v in summary["packages"].items())}.

Parameters {sizes[0]["parameters"]:,} to {sizes[1]["parameters"]:,}, multiply-adds an image \
{sizes[0]["multiply_adds"]:,} to {sizes[1]["multiply_adds"]:,}.

{table(outcome)}

The winner is theta, eta, LR_base, Delta, p, beta. Accuracies in percent.

## Accuracy after each step, on the validation images

{table(steps)}

The paper's program ran on CIFAR-10 as JPEG, from 87.7%, on two cores: {PROGRAM_SECONDS} s (search and replay).

## Where the time went (s)

{table([["", *(f"seed {seed}" for seed in options.seeds)], *([part, *each] for part, each in times.items())])}

The parts of "stage 2, PT" together are eq. 2's pruning time; they and those "apart" lie inside the replay's time.
""",
    )


if __name__ == "__main__":
    main()
