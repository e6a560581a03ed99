"""Learning-rate schedules on the same pruned models: eq. 1 against FT, LRW, SLR, CLR, LLR and ALLR.

    python benchmarks/retraining.py [--preset small|paper-cifar10|paper-tinyimagenet|paper-imagenet] [--seeds 0 1 2]

The rules. A chain of pruning steps is recovered by one epoch of eq. 1 after every step (hyperparameters as ICE's search
found them at this ratio, with seed 0, by validation images; nothing frozen). At three places of the chain (a third, two
thirds, the end) the network as it stands after the removal is given to every schedule in turn for the same number of
epochs: same weights, images, their order, teacher and batch. eta_max is each schedule's own best of --rates, by
validation images; eq. 1 has its bound and, as a second row, the best constant rate of the same list. The dense
training that LRW and SLR replay is the one that IMP is given (`--imp.dense-schedule`). The score is of the last epoch,
on images by which nothing has been decided. Schedules that come to the same rates are one row. Finished runs are kept
below --work and not redone.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from argparse import Namespace
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib
import torch
from common import PUBLISHED, RESULTS, Ledger, Row, arguments, command, machine, spread, table, write_parquet
from contest import ICE, Images, Setting, cached_images, executor_of, plan_of, search
from settings import setting_of, setting_options

from ice_ray import IceHyperparameters
from ice_ray.engine.actions import FineTune, Measure, UnprunedShare, WeightNorm
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.ingest.roles import subsample
from ice_ray.pipelines.ice import IceConfig
from ice_ray.pipelines.imp import ImpOptions
from ice_ray.pipelines.layerwise import choose_removal, removal_action
from ice_ray.training.schedules.pruning_aware import maximum_learning_rate
from ice_ray.training.schedules.retraining import RETRAININGS, RetrainingPlan, retraining_plan, same_retraining

matplotlib.use("agg")
import matplotlib.pyplot as plt

EQUATION, CONSTANT = "eq. 1", "constant"


@dataclass(frozen=True)
class Place:
    """A pruned network that every schedule is tried on.

    Attributes:
        snapshot: of it.
        step: counts from 1.
        left: its share of the dense network's parameters (alpha).
        lost: share of the weights' norm that the step's removal took.
        pruned: share of the weights that it took.
    """

    snapshot: str
    step: int
    left: float
    lost: float
    pruned: float


def chain(executor: TorchExecutor, config: IceConfig, point: IceHyperparameters) -> list[Place]:
    """The network after each step's removal, all committed."""
    snapshot, places = executor.root, []
    for step in executor.network.steps:
        norm = executor.run(snapshot, WeightNorm()).value
        had = executor.run(snapshot, UnprunedShare("parameters")).value
        chosen, _ = choose_removal(executor, snapshot, step.number, config)
        snapshot = executor.run(snapshot, removal_action(chosen, step.number, config)).snapshot
        executor.commit(snapshot)
        left = executor.run(snapshot, UnprunedShare("parameters")).value
        lost = max(0.0, 1 - (executor.run(snapshot, WeightNorm()).value / norm) ** 2) ** 0.5
        places.append(Place(snapshot, step.number, left, lost, 1 - left / had))
        rate = maximum_learning_rate(point, left, 0.0)
        snapshot = executor.run(snapshot, FineTune(("step", step.number), rate, 1, "constant", ())).snapshot
    return places


def plans(place: Place, epochs: float) -> dict[str, RetrainingPlan]:
    """What there is to try, by name; schedules that come to the same are one."""
    found: dict[str, RetrainingPlan] = {CONSTANT: RetrainingPlan(1.0, "constant")}
    for name in RETRAININGS:
        own = retraining_plan(name, ImpOptions().dense, epochs, place.lost, place.pruned)
        twin = next((known for known, other in found.items() if same_retraining(own, other)), None)
        if twin is not None:
            found[f"{twin} = {name}"] = found.pop(twin)
        else:
            found[name] = own
    return found


def run(options: Namespace, setting: Setting, decoded: Images, ratio: float, seed: int, point: dict[str, Any]) -> Row:
    """Every schedule at every place and rate: accuracies in percent."""
    plan = plan_of(setting, ICE, ratio, seed)
    dataset, roles = plan.dataset, plan_of(setting, ICE, ratio, 0).roles
    validation_rows = roles.validation
    if setting.validation_images is not None:
        validation_rows = subsample(dataset, validation_rows, setting.validation_images, seed, "benchmark decide")
    train, validation = decoded(dataset, plan.replay_rows()[0]), decoded(dataset, validation_rows)
    executor, report = executor_of(plan, plan.replay_settings, train, validation), decoded(dataset, roles.test)
    asked = IceHyperparameters.from_mapping(point)
    places = chain(executor, dataclasses.replace(PUBLISHED, ratio=ratio), asked)
    chosen = [places[len(places) * part // 3 - 1] for part in (1, 2, 3)]
    results: list[Row] = []
    for place in chosen:
        trials = [(EQUATION, RetrainingPlan(1.0, "constant"), maximum_learning_rate(asked, place.left, 0.0))]
        trials += [(name, own, rate) for name, own in plans(place, options.epochs).items() for rate in options.rates]
        for name, own, rate in trials:
            action = FineTune(("retraining", place.step), rate * own.rate, options.epochs, own.schedule, ())
            trained = executor.run(place.snapshot, action).snapshot
            measured = executor.run(trained, Measure()).value.accuracy
            scored = executor.accuracy(executor.module(trained), report)
            results.append(
                {"step": place.step, "left": place.left, "schedule": name, "rate": rate}
                | {"decide": measured, "report": scored}
            )
    return {"results": results}


def best_rows(rows: list[Row]) -> dict[tuple[float, int, str], list[Row]]:
    """Per (ratio, step, schedule): a result per seed, of the rate that validation images, over all seeds, prefer."""
    gathered: dict[tuple[float, int, str], dict[float, list[Row]]] = {}
    for row in rows:
        for result in row["results"]:
            cell = gathered.setdefault((row["key"]["ratio"], result["step"], result["schedule"]), {})
            cell.setdefault(result["rate"] if result["schedule"] != EQUATION else 0.0, []).append(result)
    return {
        key: max(rates.values(), key=lambda results: statistics.mean(result["decide"] for result in results))
        for key, rates in gathered.items()
    }


def page(options: Namespace, setting: Setting, rows: list[Row]) -> str:
    """The report in Markdown."""
    best = best_rows(rows)
    head = ["ratio", "step", "parameters left", "schedule", "eta_max", "validation images %", "test images %"]
    body = []
    for (ratio, step, schedule), results in sorted(best.items(), key=lambda item: item[0][:2]):
        rates = {result["rate"] for result in results}
        body.append(
            [
                f"{ratio:.0%}",
                str(step),
                spread([result["left"] for result in results], 3),
                schedule,
                f"{min(rates):.2g}" if len(rates) == 1 else f"{min(rates):.2g} to {max(rates):.2g}",
                spread([result["decide"] for result in results]),
                spread([result["report"] for result in results]),
            ]
        )
    rules = (__doc__ or "").split("The rules. ", 1)[1].strip()
    name = f"retraining-{setting.name}"
    return f"""# Learning-rate schedules on the same pruned models

`{command()}`

{rules}

{machine()}; seeds {", ".join(map(str, options.seeds))}, mean ± standard deviation; {options.epochs:g} epochs;
rates {", ".join(f"{rate:g}" for rate in options.rates)}.

{table([head, *body])}

![accuracy by schedule]({name}.png)
"""


def draw(rows: list[Row], path: str) -> None:
    """A panel per ratio: a group per place, a bar per schedule."""
    best = best_rows(rows)
    ratios = sorted({key[0] for key in best})
    figure, panels = plt.subplots(1, len(ratios), figsize=(5 * len(ratios), 4), layout="constrained", squeeze=False)
    for axes, ratio in zip(panels[0], ratios, strict=True):
        steps = sorted({key[1] for key in best if key[0] == ratio})
        names = list(dict.fromkeys(key[2] for key in best if key[0] == ratio))
        for (place, step), (number, name) in itertools.product(enumerate(steps), enumerate(names)):
            values = [result["report"] for result in best.get((ratio, step, name), [])]
            if values:
                left = place + 0.8 * number / len(names)
                label = name if place == 0 else None
                axes.bar(left, statistics.mean(values), 0.8 / len(names), color=f"C{number}", label=label)
        axes.set_xticks([place + 0.35 for place in range(len(steps))], [f"step {step}" for step in steps])
        axes.set_title(f"{ratio:.0%}", fontsize=10)
        axes.set_ylim(bottom=min(result["report"] for results in best.values() for result in results) - 5)
    panels[0][0].set_ylabel("accuracy on the test images (%)")
    panels[0][0].legend(fontsize=7)
    figure.savefig(RESULTS / path, dpi=120)


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__)
    setting_options(parser)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.005, 0.02, 0.1], help="eta_max to choose from")
    parser.add_argument("--epochs", type=float, default=1.0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    setting, decoded = setting_of(options), cached_images()
    searches, ledger = Ledger(options.work, "contest"), Ledger(options.work, "retraining")
    rows = []
    for ratio, seed in itertools.product(options.ratios, options.seeds):
        key = {"setting": setting.name, "ratio": ratio, "pipeline": ICE.name, "part": "search"}
        point = searches.once(key, partial(search, setting, ICE, ratio, decoded))["point"]
        own = {"setting": setting.name, "ratio": ratio, "seed": seed, "epochs": options.epochs, "rates": options.rates}
        rows.append(ledger.once(own, partial(run, options, setting, decoded, ratio, seed, point)))
    ledger.keep()
    name = f"retraining-{setting.name}"
    flat = [{"key": row["key"] | {"number": n}, **result} for row in rows for n, result in enumerate(row["results"])]
    write_parquet(name, flat)
    (RESULTS / f"{name}.md").write_text(page(options, setting, rows))
    draw(rows, f"{name}.png")


if __name__ == "__main__":
    main()
