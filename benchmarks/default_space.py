"""Which points stage 1 tries by default: many are replayed, and tried as stage 1 tries them.

    python benchmarks/default_space.py --threads 1 --stage replay [--model cifar-resnet56] [--train-share 0.4]
    python benchmarks/default_space.py --threads 1 --stage search [--search-batch 128] [--groups never thresholds]
    python benchmarks/default_space.py --threads 1 --page

The rules. The published ResNet-20 and ResNet-56 on the original CIFAR-10 images, `--pipeline ice` with its default
options, in this process; trials share what they have in common, each has the cost that it would have had alone. A
replay trains on the share of the 50,000 training images that is named, in batches of 128, and decides on one half of
the test split; its drop is of the whole test split. A trial of stage 1 has 5,000 training images (10%), in batches of
32 unless the row says otherwise, and its drop is of 1,000 validation images. Time is PT, in seconds of the processor,
and in operations, which nothing else on the machine can distort. Delta is half of LR, p 0.15, beta 50, but for the rows
that say `paper`: Delta 0.0007. A point is on the front where none that was replayed on the same images takes fewer
operations and loses no more (marked *). Below each table: what `nearly-best` chooses by the trials, of the points that
were replayed too, what its replay loses above the best replayed, and Kendall's tau between the drops of trials and
replays. Finished runs are kept below --work and not redone.
"""

from __future__ import annotations

import itertools
from argparse import Namespace
from collections.abc import Sequence
from functools import partial

import torch
from common import RESULTS, Ledger, Row, arguments, command, table
from contest import Contestant, Setting, cached_images, executor_of, plan_of, processor_seconds, to_the_end
from scipy.stats import kendalltau

from ice_ray import Hyperparameters, IceHyperparameters
from ice_ray.cache.actions import ActionIndex, LocalActionCache
from ice_ray.cache.executor import CachingExecutor
from ice_ray.cache.teacher import LocalTeacherCache
from ice_ray.errors import TrialFailure
from ice_ray.hyperparameters import spelled
from ice_ray.objectives import Candidate, objective_named
from ice_ray.pipelines.registry import build_pipeline
from ice_ray.trials.space import load_space

CHOSEN = """## What was chosen, and why

Ten points: theta never or 4 (nothing frozen, LR 0.003), with no retraining or one of 1 or 4 epochs at 0.01 or 0.03.

- **Theta never, in front.** With repairs, a theta of 4 or 2 took 5 or 13 times the operations of never and lost as
  much (6.5 to 6.7 points against 6.5 at 60% of ResNet-20); at 80% the trials lose 23.4 points with theta 4, 13.9 with
  never. The time is better spent on a retraining at the end: never and four epochs lose 4.8 points for less
  than half the operations of theta 2 and two epochs (5.2).
- **Theta 4 is the second value.** It was on a front once, and by 0.12 points, which is noise (4.69 against 4.81 for
  half as many operations again). It is there for data on which repairs do not suffice, which these are not; where they
  do, as in ResNet-56, no step reaches it: its trials are those of never but for asking (a third more operations
  in a trial, 84% in that replay). Theta 2 fine-tunes after six of nine steps for the same drop. With one epoch at the
  end theta 4 was not tried.
- **LR 0.003 of its fine-tunes**: in a trial's batches of 32 theta 4 loses 6.4 points at 0.003 and 10.4 at 0.01, in the
  replay's of 128 6.6 and 6.7. At 0.03 it is worse wherever nothing follows. Delta of half the rate beats the paper's
  0.0007 at 0.01 (9.7 against 14.6 points, theta 2). At 0.003 with the paper's Delta theta 2 loses 5.4, so the rate
  decides.
- **eta 0**: 0.3 and 0.9 save 1 and 4% of the operations, and need a probe of an epoch first. In that trial eta 0.3
  loses 1.5 points less than eta 0 (7.8 against 9.3) and eta 0.9 0.9 less, at a rate that is too large for all three;
  one seed. Who wants to freeze names it in a space of their own.
- **0, 1 and 4 epochs**: what a retraining is worth grows with the images. ResNet-20 gains 0.2 points by one epoch and
  1.7 by four on 20,000 images, 1.0 and 2.4 on all 50,000 (2.5, 7, 5 and 16 times the operations of repairs alone);
  ResNet-56 on 10,000 gains nothing (3.47 points lost without, 3.49 and 3.94 with four epochs). Two epochs are on the
  front on 20,000 images too (5.5), between one and four; left out for the trials' time.
- **0.01 and 0.03**: the replay is better at 0.03 wherever a retraining pays; a trial, with its fewer and smaller
  batches, is at 0.01, and with 0.03 alone would advise against retraining. 0.005 is never best,
  and 0.1, tried in trials alone, the worst of four epochs.

Against us: a trial of 5,000 images does not rank retrainings as the replay does. Batches of 32 choose never and four
epochs at 0.01 for ResNet-20, which gives away 0.4 points on 20,000 images and 0.8 on 50,000; batches of 128 choose no
retraining and give away 1.8 and 2.4. So 32 stays the default, and who can pay for it tries 0.03 by `--search.subsample
1`, or by a space of one point. All are single seeds; a difference below half a point says nothing.

An epoch of a million images is long: `--space imagenet` has none, a quarter of one or one, at 0.01, with theta never.
It has not been measured on ImageNet.

All rows were run at commit b292d9b, where a theta of 100 stood for never; the two that freeze were run again since, to
the same accuracies and operations.
"""
NEVER = IceHyperparameters().accuracy_drop_threshold
WEIGHTS = {"cifar-resnet20": "resnet20-12fca82f.th", "cifar-resnet56": "resnet56-4bfd9763.th"}
SEARCH_SHARE = 0.1


def point(
    theta: float = NEVER, eta: float = 0, rate: float = 0.01, epochs: float = 0, final: float = 0, delta: float = 0
) -> IceHyperparameters:
    """One that differs from the simplest in what is named; Delta is half the rate unless it is given."""
    last = final if epochs else 0
    return IceHyperparameters(
        theta, eta, rate, delta or rate / 2, 0.15, 50, final_epochs=epochs, final_learning_rate=last
    ).settled


RATES, LENGTHS = (0.005, 0.01, 0.03), (1, 2, 4)
GROUPS = {
    "never": [point(epochs=epochs, final=rate) for epochs, rate in itertools.product(LENGTHS, RATES)],
    "few": [point(epochs=epochs, final=rate) for epochs, rate in ((1, 0.03), (4, 0.01), (4, 0.03), (4, 0.1))],
    "thresholds": [point(theta, epochs=epochs, final=0.03) for theta, epochs in itertools.product((4, 2), (0, 2))],
    "rates": [point(4, rate=0.03, epochs=epochs, final=0.03) for epochs in (0, 2)],
    "freezing": [point(4, eta, epochs=2, final=0.03) for eta in (0.3, 0.9)],
    "paper": [point(2, rate=rate, delta=0.0007) for rate in (0.01, 0.003)],
}


def run_all(options: Namespace, ledger: Ledger) -> None:
    """The points of the groups in one stage of one network, those that are not in the ledger yet."""
    share = SEARCH_SHARE if options.stage == "search" else options.train_share
    places = ("--weights", f"{options.shared}/weights/{WEIGHTS[options.model]}")
    words = ("--model", options.model, *places, "--data", f"cifar10:{options.shared}/datasets/cifar10")
    sizes = ("--search.batch-size", str(options.search_batch), "--replay.subsample", str(options.train_share))
    plan = plan_of(Setting("", (*words, *sizes)), Contestant("", ()), options.ratio, options.seed)
    searches, decoded = options.stage == "search", cached_images()
    settings = plan.search_settings if searches else plan.replay_settings
    rows = plan.search_rows() if searches else plan.replay_rows()
    train, validation = (decoded(plan.dataset, each) for each in rows)
    test = decoded(plan.dataset, plan.roles.test)
    executor = executor_of(plan, settings, train, validation)
    executor.fine_tuner.teacher_cache = LocalTeacherCache()
    cache = LocalActionCache(ActionIndex(), {})
    worker = CachingExecutor(executor, cache)
    asked = dict.fromkeys([point(), *(each for group in options.groups for each in GROUPS[group])])
    pipelines = [build_pipeline(settings.pipeline, settings.config, each) for each in asked]
    preparation = pipelines[0].prepare(executor, any(pipeline.freezes for pipeline in pipelines))
    dense = executor.accuracy(executor.module(executor.root), test)

    def run(index: int) -> Row:
        try:
            state = to_the_end(pipelines[index], worker, preparation)
        except TrialFailure as failure:
            return {"failure": str(failure)}
        content = cache.content(state.snapshot)
        assert content is not None, "what a repair or a training led to is kept"
        executor.store.put(content)
        return {
            "original": preparation.original_accuracy,
            "decide": state.accuracy,
            "dense_report": dense,
            "report": executor.accuracy(executor.module(state.snapshot), test),
            "fine_tunes": sum(record.fine_tuned for record in state.records),
            "seconds": state.pruning_seconds("wall", 1.0),
            "flops": sum(record.flops for record in state.records),
            "probe_seconds": preparation.probe_seconds,
        }

    named = {"stage": options.stage, "model": options.model, "ratio": options.ratio, "share": share}
    for index, each in enumerate(asked):
        key = named | {"batch": settings.batch_size, "seed": options.seed, **each.plain()}
        ledger.once(key, partial(run, index))


def of_row(row: Row) -> IceHyperparameters:
    """The point of a row."""
    return IceHyperparameters.from_mapping({name: row["key"][name] for name in IceHyperparameters.names()})


def drop(row: Row) -> float:
    """Points: of a replay on the whole test split (its halves are as large), of a trial on its validation images."""
    decided = float(row["original"] - row["decide"])
    return (decided + row["dense_report"] - row["report"]) / 2 if row["key"]["stage"] == "replay" else decided


def front(rows: Sequence[Row]) -> list[Row]:
    """Those that no other beats: in order of operations."""
    found: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["flops"], drop(row))):
        if not found or drop(row) < drop(found[-1]):
            found.append(row)
    return found


def chosen(rows: Sequence[Row], points: Sequence[IceHyperparameters]) -> IceHyperparameters:
    """What `nearly-best` takes of these points, by these rows."""
    own = [row for row in rows if of_row(row) in points]
    candidates = [Candidate(index, row["flops"], drop(row)) for index, row in enumerate(own)]
    return of_row(own[objective_named("nearly-best").choose(candidates).index])


def section(rows: Sequence[Row], model: str, ratio: float) -> str:
    """Everything of one network at one ratio."""
    own = [row for row in rows if (row["key"]["model"], row["key"]["ratio"]) == (model, ratio) and "flops" in row]
    columns = sorted({(row["key"]["stage"], row["key"]["share"], row["key"]["batch"]) for row in own})
    parts = {each: [row for row in own if _column(row) == each] for each in columns}
    points = sorted({of_row(row) for row in own}, key=lambda each: tuple(each.as_dict().values()))
    default, lines = load_space("default").points(), []
    fronts = {each: [of_row(row) for row in front(part)] for each, part in parts.items()}
    for each in points:
        line = [spelled(each.accuracy_drop_threshold), *_training(each), "x" if each in default else ""]
        for column, part in parts.items():
            row = next((row for row in part if of_row(row) == each), None)
            mark = " *" if each in fronts[column] else ""
            said = ("", "", "", "")
            if row is not None:
                tera = f"{row['flops'] / 1e12:.1f}"
                said = (str(row["fine_tunes"]), f"{row['seconds']:.0f}", tera, f"{drop(row):.2f}{mark}")
            line += said[1:] if column[0] == "search" else said
        lines.append(line)
    head = ["theta", "eta", "LR", "final epochs", "final LR", "default"]
    for stage, share, batch in columns:
        of = f"{stage.replace('search', 'trial')}, {50_000 * share:,.0f} images, batch {batch}"
        head += ["fine-tunes"] * (stage == "replay") + [f"PT s ({of})", "10^12", "drop"]
    return f"## {model.removeprefix('cifar-')}, {ratio:.0%}\n\n{table([head, *lines])}\n\n{choices(parts, default)}"


def _column(row: Row) -> tuple[str, float, int]:
    return row["key"]["stage"], row["key"]["share"], row["key"]["batch"]


def _training(each: IceHyperparameters) -> tuple[str, ...]:
    asks = each.accuracy_drop_threshold != NEVER
    paper = " (paper)" if each.learning_rate_reduction == 0.0007 else ""
    steps = (f"{each.frozen_fraction:g}", f"{each.base_learning_rate:g}{paper}") if asks else ("", "")
    return (*steps, f"{each.final_epochs:g}", f"{each.final_learning_rate:g}" if each.final_epochs else "")


def choices(parts: dict[tuple[str, float, int], list[Row]], default: Sequence[Hyperparameters]) -> str:
    """What stage 1 would have chosen, what that gives away in the replay, and how alike the two rank."""
    replays = {column: part for column, part in parts.items() if column[0] == "replay"}
    head = ["trials in batches of", "replayed on", "chosen", "gives away (points)", "tau", "points of"]
    lines = [[*head, "points"]]
    for (column, part), (replay, replayed) in itertools.product(parts.items(), replays.items()):
        if column[0] == "replay":
            continue
        both = [of_row(row) for row in part if of_row(row) in {of_row(each) for each in replayed}]
        of = {of_row(row): drop(row) for row in replayed}
        tried = {of_row(row): drop(row) for row in part}
        tau = kendalltau([tried[each] for each in both], [of[each] for each in both]).statistic
        for name, points in (("all", both), ("the default space", [each for each in both if each in default])):
            if points:
                own = chosen(part, points)
                lost, images = of[own] - min(of.values()), f"{50_000 * replay[1]:,.0f} images"
                rank = f"{tau:.2f}" if name == "all" else ""
                lines.append([str(column[2]), images, str(own), f"{lost:.2f}", rank, name, str(len(points))])
    return table(lines) + "\n" if len(lines) > 1 else ""


def main() -> None:
    """Run what is missing of what is asked for, or write the page."""
    parser = arguments(__doc__)
    parser.add_argument("--page", action="store_true", help="run nothing; write the page of what has been run")
    parser.add_argument("--model", choices=WEIGHTS, default="cifar-resnet20")
    parser.add_argument("--stage", choices=("search", "replay"), default="replay")
    parser.add_argument("--train-share", type=float, default=0.4)
    parser.add_argument("--ratio", type=float, default=0.6)
    parser.add_argument("--search-batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=["never"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    processor_seconds()
    own = "-".join(map(str, (options.stage, options.model, options.ratio, options.search_batch, options.seed)))
    ledger = Ledger(options.work, "default_space", f"-{own}")
    if not options.page:
        run_all(options, ledger)
        return
    ledger.keep()
    found = sorted({(row["key"]["model"], row["key"]["ratio"]) for row in ledger.rows})
    sections = "\n".join(section(ledger.rows, model, ratio) for model, ratio in found)
    rules, machines = (__doc__ or "").split("The rules. ", 1)[1].strip(), {row["machine"] for row in ledger.rows}
    page = f"# Stage 1's default space\n\n`{command()}`\n\n{rules}\n\n{' and '.join(sorted(machines))}; one seed a row."
    (RESULTS / "default_space.md").write_text(f"{page}\n\n{CHOSEN}\n{sections}")


if __name__ == "__main__":
    main()
