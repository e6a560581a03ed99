"""Which points belong into stage 1's default space: many are replayed, and tried as stage 1 would try them.

python benchmarks/default_space.py --threads 1 --stage replay --train-share 0.4
python benchmarks/default_space.py --threads 1 --stage search
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import torch
from common import Ledger, Row, arguments
from contest import Contestant, Setting, cached_images, executor_of, plan_of, processor_seconds, to_the_end

from ice_ray import IceHyperparameters
from ice_ray.cache.actions import ActionIndex, LocalActionCache
from ice_ray.cache.executor import CachingExecutor
from ice_ray.cache.teacher import LocalTeacherCache
from ice_ray.errors import TrialFailure
from ice_ray.pipelines.prepare import prepare
from ice_ray.pipelines.registry import build_pipeline

NEVER = 100.0
WEIGHTS = {"cifar-resnet20": "resnet20-12fca82f.th", "cifar-resnet56": "resnet56-4bfd9763.th"}
METHOD = "--pipeline ice --criterion residual --repair reconstruction --prune.calibration-images 2000"
METHOD += " --decision-error 0.01 --search.subsample 0.1 --batch-size 128"
CONTESTANT = Contestant("ice", tuple(METHOD.split()))


def point(
    theta: float = NEVER,
    eta: float = 0.0,
    rate: float = 0.01,
    epochs: float = 0,
    final: float = 0.0,
    paper: bool = False,
) -> IceHyperparameters:
    """One of the points; `paper` takes the middle of the paper's Delta, p and beta."""
    rest = (0.0007, 0.15, 50.0) if paper else (rate / 2, 0.15, 50.0)
    return IceHyperparameters(theta, eta, rate, *rest, final_epochs=epochs, final_learning_rate=final if epochs else 0)


def points(groups: list[str]) -> list[IceHyperparameters]:
    never = [point()]
    groups_of = {
        "never": [point(epochs=e, final=r) for e, r in itertools.product((1, 2, 4), (0.005, 0.01, 0.03))],
        "never-more": [point(epochs=e, final=r) for e, r in ((0.5, 0.03), (0.5, 0.01), (1, 0.1), (2, 0.1), (4, 0.1))],
        "never-few": [point(epochs=e, final=r) for e, r in ((1, 0.01), (1, 0.03), (4, 0.01), (4, 0.03))],
        "theta": [point(theta=t) for t in (4, 2, 1, 0.5)],
        "theta-final": [
            point(theta=t, epochs=e, final=r) for t, e, r in itertools.product((4, 2), (1, 2), (0.01, 0.03))
        ],
        "theta-few": [point(theta=t, epochs=e, final=0.03 if e else 0) for t, e in itertools.product((4, 2), (0, 2))],
        "rate": [point(theta=2, rate=r) for r in (0.03, 0.003)],
        "theta-rate": [point(theta=t, rate=0.03, epochs=e, final=0.03) for t, e in itertools.product((4, 2), (0, 2))],
        "high": [point(epochs=e, final=r) for r, e in itertools.product((0.03, 0.1), (1, 2, 4))],
        "few": [point(epochs=e, final=r) for e, r in ((1, 0.03), (2, 0.03), (4, 0.01), (4, 0.03), (4, 0.1))],
        "fewer": [point(epochs=e, final=r) for e, r in ((1, 0.03), (4, 0.01), (4, 0.03))],
        "theta-4": [point(theta=4, epochs=e, final=0.03) for e in (0, 2)],
        "eta": [point(theta=4, eta=e, epochs=2, final=0.03) for e in (0.3, 0.9)],
        "paper": [point(theta=2, paper=True), point(theta=2, rate=0.003, paper=True)],
    }
    return list(dict.fromkeys(never + [each for group in groups for each in groups_of[group]]))


def setting_of(shared: Any, model: str, share: float) -> Setting:
    words = f"--model {model} --weights {shared}/weights/{WEIGHTS[model]} --data cifar10:{shared}/datasets/cifar10"
    return Setting(f"{model}", (*words.split(), "--replay.subsample", str(share)))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", choices=WEIGHTS, default="cifar-resnet20")
    parser.add_argument("--stage", choices=("search", "replay"), default="replay")
    parser.add_argument("--train-share", type=float, default=0.4)
    parser.add_argument("--ratio", type=float, default=0.6)
    parser.add_argument("--search-batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--groups", nargs="+", default=["never"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    processor_seconds()
    share = options.train_share if options.stage == "replay" else 0.1
    setting = setting_of(options.shared, options.model, share if options.stage == "replay" else 1.0)
    contestant = Contestant("ice", (*CONTESTANT.options, "--search.batch-size", str(options.search_batch)))
    plan = plan_of(setting, contestant, options.ratio, options.seed)
    is_search = options.stage == "search"
    settings = plan.search_settings if is_search else plan.replay_settings
    decoded = cached_images()
    train, validation = (
        decoded(plan.dataset, rows) for rows in (plan.search_rows() if is_search else plan.replay_rows())
    )
    report = decoded(plan.dataset, plan.roles.test)
    executor = executor_of(plan, settings, train, validation)
    executor.fine_tuner.teacher_cache = LocalTeacherCache()
    worker = CachingExecutor(executor, LocalActionCache(ActionIndex(), {}))
    asked = points(options.groups)
    preparation = prepare(executor, settings.removal, settings.freeze, any(each.freezes for each in asked))
    dense = executor.accuracy(executor.module(executor.root), report)
    ledger = Ledger(
        options.work,
        "default_space",
        f"-{options.stage}-{options.model}-{options.ratio}-{share}-{options.seed}-{options.search_batch}",
    )

    def run(own: IceHyperparameters) -> Row:
        try:
            state = to_the_end(build_pipeline(settings, own), worker, preparation)
        except TrialFailure as failure:
            return {"failure": str(failure)}
        worker._bring(state.snapshot)
        return {
            "batch": settings.recipe.batch_size,
            "images": len(train),
            "decided_on": len(validation),
            "original": preparation.original_accuracy,
            "decide": state.accuracy,
            "dense_report": dense,
            "report": executor.accuracy(executor.module(state.snapshot), report),
            "fine_tunes": sum(record.fine_tuned for record in state.records),
            "seconds": state.pruning_seconds("wall", 1.0),
            "flops": sum(record.flops for record in state.records),
            "probe_seconds": preparation.probe_seconds,
            "steps": [record.as_dict() for record in state.records],
        }

    for own in asked:
        key = {"stage": options.stage, "model": options.model, "ratio": options.ratio, "share": share}
        key |= {"batch": settings.recipe.batch_size, "seed": options.seed, **own.as_dict()}
        ledger.once(key, partial(run, own))


if __name__ == "__main__":
    main()
