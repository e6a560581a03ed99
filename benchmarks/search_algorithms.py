"""Grid sample, random, TPE and GP at equal budgets, on a grid of which every point is known.

    python benchmarks/search_algorithms.py

`results/shared_work.parquet` holds all 216 points of the paper's CIFAR-10 grid (ResNet-20, 60%, 2% of the training
images), so searching it costs nothing. Every algorithm gets the same number of trials and the same seeds. The grid
sample is what `--search.algorithm grid --search.trials N` does: points without repetition in seeded order. The others
draw from the box that the grid spans; what they ask for is taken to the nearest point of the grid (rates by their
ratio), and they are told that point's drop. Compared by what the search would have ended with: the smallest drop found,
above the grid's own smallest (regret, points), and how often the winner of the `auto` objective among the points seen
is within half a point of the whole grid's winner in drop and not slower by more than a tenth.
"""

from __future__ import annotations

import math
import statistics
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from common import RESULTS, Ledger, Row, arguments, command, machine, share, table, write_parquet

from ice_ray import IceHyperparameters
from ice_ray.objectives import Candidate, objective_named
from ice_ray.trials.sampler import Outcome, SamplerName, Sampling
from ice_ray.trials.space import load_space

SAMPLERS: dict[str, SamplerName] = {"tpe": "tpe", "gp": "gp"}
ALGORITHMS = ("grid", "random", *SAMPLERS)
BUDGETS = (6, 12, 24)
POINT = tuple(load_space("paper-cifar10").bounds.ranges)  # without the final retraining, which this grid has not


class Known:
    """The grid's points with what each led to."""

    def __init__(self) -> None:
        (row,) = (row for row in pq.read_table(RESULTS / "shared_work.parquet").to_pylist() if row["run"] == "grid")
        self.points = [IceHyperparameters.from_mapping(point) for point in row["points"]]
        outcomes = enumerate(zip(row["flops"], row["drop"], strict=True))
        self.candidates = [Candidate(index, flops / row["flops_per_second"], drop) for index, (flops, drop) in outcomes]
        self._places = np.array([place(point) for point in self.points])
        self._width = np.ptp(self._places, axis=0)

    def nearest(self, point: IceHyperparameters) -> int:
        """The grid point that is nearest, each hyperparameter over its range."""
        width = np.where(self._width > 0, self._width, 1.0)
        return int(np.argmin((((self._places - place(point)) / width) ** 2).sum(axis=1)))

    def winner(self, seen: list[int]) -> Candidate:
        """Of the `auto` objective on the work clock, among these points."""
        return self.candidates[objective_named("auto").choose([self.candidates[index] for index in seen]).index]


def place(point: IceHyperparameters) -> list[float]:
    """Where a point lies, rates on their logarithmic scale."""
    values = {name: value for name, value in point.as_dict().items() if name in POINT}
    return [math.log(value) if name in point.logarithmic() else value for name, value in values.items()]


@cache
def known() -> Known:
    """Read once."""
    return Known()


def points_seen(algorithm: str, budget: int, seed: int) -> list[int]:
    """The grid points that a search comes to, in its order."""
    space, grid = load_space("paper-cifar10"), known()
    if algorithm == "grid":
        return [grid.points.index(point) for point in space.sample(budget, seed)]
    if algorithm == "random":
        return [grid.nearest(point) for point in space.bounds.draw(budget, seed)]
    sampling = Sampling(SAMPLERS[algorithm], space.bounds, budget, seed)
    history: list[tuple[IceHyperparameters, Outcome]] = []
    seen: list[int] = []
    for _ in range(budget):
        index = grid.nearest(sampling.suggest(history, 1))
        seen.append(index)
        history.append((grid.points[index], (grid.candidates[index].drop,)))
    return seen


def searched(algorithm: str, budget: int, seed: int) -> Row:
    """What one search ended with."""
    grid = known()
    seen = points_seen(algorithm, budget, seed)
    best, own = grid.winner(list(range(len(grid.points)))), grid.winner(seen)
    smallest = min(candidate.drop for candidate in grid.candidates)
    return {
        "regret": min(grid.candidates[index].drop for index in seen) - smallest,
        "found": own.drop <= best.drop + 0.5 and own.pruning_seconds <= 1.1 * best.pruning_seconds,
        "different": len(set(seen)),
    }


def page(rows: list[Row], options: Any) -> str:
    """The report in Markdown."""
    lines = [["trials", "algorithm", "regret (points), mean [quartiles]", "winner as good as the grid's", "points"]]
    for budget in BUDGETS:
        for algorithm in ALGORITHMS:
            own = [r for r in rows if (r["key"]["algorithm"], r["key"]["budget"]) == (algorithm, budget)]
            regrets = [row["regret"] for row in own]
            low, _, high = statistics.quantiles(regrets, n=4)
            error = statistics.stdev(regrets) / math.sqrt(len(regrets))
            lines.append(
                [
                    str(budget),
                    algorithm,
                    f"{statistics.mean(regrets):.2f} ± {error:.2f} [{low:.2f}, {high:.2f}]",
                    f"{statistics.mean(row['found'] for row in own):.0%}",
                    f"{statistics.mean(row['different'] for row in own):.1f}",
                ]
            )
    return f"""# Which search finds the good points of the grid

`{command()}`

{(__doc__ or "").split("    python", 1)[1].split(chr(10), 2)[2].strip()}

{machine()}; {options.seeds} seeds each; ± is the standard error of the mean; points: different ones of the grid seen.

{table(lines)}
"""


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__, parts=True)
    parser.add_argument("--seeds", type=int, default=100)
    options = parser.parse_args()
    part, name = share(options.part)
    ledger = Ledger(options.work, "search_algorithms", name)
    runs = [(a, b, s) for b in BUDGETS for a in ALGORITHMS for s in range(options.seeds)]
    rows = []
    for algorithm, budget, seed in runs[part]:
        key = {"algorithm": algorithm, "budget": budget, "seed": seed}
        rows.append(ledger.once(key, partial(searched, algorithm, budget, seed)))
    if not name:
        write_parquet("search_algorithms", rows)
        (RESULTS / "search_algorithms.md").write_text(page(rows, options))


if __name__ == "__main__":
    main()
