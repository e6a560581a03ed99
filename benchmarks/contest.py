"""What the comparisons of pipelines share: a pipeline as its job would run it, in this process.

First its hyperparameters are searched on a subsample (once per pipeline and ratio, by validation images, with the job's
own objective and with trials that share their work), then its winner is replayed on all of the benchmark's training
images, once a seed. A contestant is what a user would put on the command line.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from common import Ledger, Row, images
from torch import nn

from ice_ray import Hyperparameters, ImageSet, PruningData
from ice_ray.cache.actions import ActionIndex, LocalActionCache
from ice_ray.cache.executor import CachingExecutor
from ice_ray.cache.teacher import LocalTeacherCache
from ice_ray.config.command_line import parse
from ice_ray.config.run import RunConfig
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.target import macs
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.errors import TrialFailure
from ice_ray.ingest.datasets import Dataset
from ice_ray.ingest.roles import Rows, subsample
from ice_ray.objectives import Candidate, objective_named
from ice_ray.pipelines.base import Pipeline
from ice_ray.pipelines.records import PipelineState, Preparation
from ice_ray.pipelines.registry import build_pipeline
from ice_ray.pipelines.settings import PruningSettings
from ice_ray.training.precision import resolve
from ice_ray.workflow.plan import Plan, make_plan

_DENSE_SCORES: dict[tuple[str, str], tuple[float, float]] = {}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def processor_seconds() -> None:
    """On one thread, price all that follows by what the processor spent: other work on the machine then costs a run
    nothing.
    """
    if DEVICE.type == "cpu" and torch.get_num_threads() == 1:
        time.perf_counter = time.process_time


@dataclass(frozen=True)
class Setting:
    """What all contestants have in common.

    Attributes:
        name: of the setting; runs are kept by it.
        options: of the job: model, weights, data, sizes of both stages.
        validation_images: how many of the validation images decide in the replay; None for all.
        published: options that ICE as published has in it, where the setting's own do not say them.
        tuned_in: the setting whose searches found the hyperparameters, for what has not been searched in this one.
    """

    name: str
    options: tuple[str, ...]
    validation_images: int | None = None
    tuned_in: str = ""
    published: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contestant:
    """A row of the table.

    Attributes:
        options: of the job, beside the setting's.
        tuned_as: whose search found its hyperparameters; its own where that is empty.
        is_published: whether it is ICE as published, or made from that.
        twin: who asks a threshold before every fine-tune where this one does not, and is the same in all else.
    """

    name: str
    options: tuple[str, ...]
    tuned_as: str = ""
    twin: str = ""
    is_published: bool = False


_AS_PUBLISHED = "--pipeline ice --criterion l1 --calibration-images 1000 --repair none --decision-error 0"
ICE = Contestant("ice", (*_AS_PUBLISHED.split(), "--search.trials", "6"), is_published=True)
"""As published, but for the grid, of which it has six points."""
STEADY = Contestant(
    "baseline, rate 0.005", ("--pipeline", "baseline", "--space", "benchmarks/spaces/baseline-0.005.yaml")
)
"""The baseline where its search, on fewer images, chooses a rate that does worse on the replay's."""

Images = Callable[[Dataset, Rows], ImageSet]


def cached_images() -> Images:
    """Decodes each set of rows once."""
    known: dict[tuple[str, bytes], ImageSet] = {}

    def decoded(dataset: Dataset, rows: Rows) -> ImageSet:
        key = (rows.split, rows.indices.tobytes())
        if key not in known:
            known[key] = images(dataset, rows)
        return known[key]

    return decoded


def plan_of(setting: Setting, contestant: Contestant, ratio: float, seed: int) -> Plan:
    """As the job would make it."""
    published = setting.published if contestant.is_published else ()
    words = [*setting.options, *published, *contestant.options, "--ratio", str(ratio), "--seed", str(seed)]
    return make_plan(parse(RunConfig, words, "benchmark"))


def dense_network(plan: Plan) -> DenseNetwork:
    """The trained network, traced, with the plan's amounts."""
    module = plan.spec.build()
    if plan.weights is not None:
        module.load_state_dict(plan.weights)
    return DenseNetwork(module, plan.image_shape, plan.selection, plan.config.options.amounts, plan.layout)


def executor_of(plan: Plan, settings: PruningSettings, train: ImageSet, validation: ImageSet) -> TorchExecutor:
    """An executor on this machine's device, warmed up."""
    recipe = settings.recipe(resolve(plan.config.precision, DEVICE))
    data = PruningData(train, validation, plan.preprocessing)
    executor = TorchExecutor(dense_network(plan), data, recipe, settings.seed, DEVICE)
    executor.warm_up()
    return executor


def to_the_end(pipeline: Pipeline, worker: Any, preparation: Preparation) -> PipelineState:
    """All rounds; networks that may be gone back to are kept."""
    state = pipeline.begin(worker)
    while not pipeline.is_done(worker, state):
        state = pipeline.advance(worker, state, preparation)
        if isinstance(worker, TorchExecutor) and state.kept:
            worker.commit(state.snapshot)
            worker.store.keep_only(state.kept)
    return state


def search(setting: Setting, contestant: Contestant, ratio: float, decoded: Images) -> Row:
    """Stage 1 with seed 0: the winner, every trial, and what it took, wall, decoding apart."""
    plan = plan_of(setting, contestant, ratio, 0)
    train, validation = (decoded(plan.dataset, rows) for rows in plan.search_rows())
    settings = plan.search_settings
    executor = executor_of(plan, settings, train, validation)
    began = time.perf_counter()
    pipelines = [build_pipeline(settings.pipeline, settings.config, point) for point in plan.proposals.known]
    preparation = pipelines[0].prepare(executor, plan.probes)
    executor.fine_tuner.teacher_cache = LocalTeacherCache()
    worker = CachingExecutor(executor, LocalActionCache(ActionIndex(), {}))
    trials: list[Row] = []
    candidates: list[Candidate] = []
    for index, pipeline in enumerate(pipelines):
        point = pipeline.hyperparameters.plain()
        try:
            state = to_the_end(pipeline, worker, preparation)
        except TrialFailure as failure:
            trials.append({**point, "failure": str(failure)})
            continue
        last = state.records[-1]
        candidates.append(Candidate(index, state.pruning_seconds("wall", 1.0), last.drop, last.unpruned_share))
        own, taken = candidates[-1], max(1 - record.unpruned_share for record in state.records)
        found = {"drop": own.drop, "left": own.unpruned_share, "taken": taken, "seconds": own.pruning_seconds}
        trials.append(point | found)
    choice = objective_named(plan.config.search.objective, plan.config.search.max_drop).choose(candidates)
    return {
        "point": plan.proposals.known[choice.index].plain(),
        "reason": choice.reason,
        "seconds": time.perf_counter() - began,
        "trials": trials,
        "asked": worker.asked,
        "executed": worker.executed,
    }


def replay(
    setting: Setting, contestant: Contestant, ratio: float, seed: int, point: Hyperparameters, decoded: Images
) -> Row:
    """Stage 2 with one seed: accuracies in percent, shares of the dense network, seconds by part, every record."""
    plan, searched = plan_of(setting, contestant, ratio, seed), plan_of(setting, contestant, ratio, 0)
    dataset, settings = plan.dataset, plan.replay_settings
    train_rows, _ = plan.replay_rows()
    validation_rows, test_rows = searched.roles.validation, searched.roles.test  # of the search: it has seen no other
    if setting.validation_images is not None:
        validation_rows = subsample(dataset, validation_rows, setting.validation_images, seed, "benchmark decide")
    executor = executor_of(plan, settings, decoded(dataset, train_rows), decoded(dataset, validation_rows))
    pipeline = build_pipeline(settings.pipeline, settings.config, point)
    preparation = pipeline.prepare(executor, pipeline.freezes)
    state = to_the_end(pipeline, executor, preparation)
    pruning = state.pruning_seconds("wall", 1.0)
    state, final = pipeline.finish(executor, state, preparation)
    module = copy.deepcopy(executor.module(state.snapshot))
    network, dense = executor.network, executor.network.build(DEVICE)
    counting = "non-zero-parameters" if "unstructured" in contestant.options else "parameters"
    rest, whole = _rest_of_test(plan, test_rows), len(plan.dataset.labels[test_rows.split])

    def scores(network: nn.Module) -> tuple[float, float]:
        """On the images that report, and on the whole split."""
        own, other = (executor.accuracy(network, decoded(dataset, rows)) for rows in (test_rows, rest))
        return own, (own * len(test_rows.indices) + other * len(rest.indices)) / whole

    key = (setting.name, plan.config.precision)
    if key not in _DENSE_SCORES:
        _DENSE_SCORES[key] = scores(dense)
    (own, test), (dense_own, dense_test) = scores(module), _DENSE_SCORES[key]
    return {
        "point": point.plain(),
        "config": plan.config.as_dict(),
        "original": preparation.original_accuracy,
        "decide": state.records[-1].accuracy,
        "report": own,
        "test": test,
        "dense_report": dense_own,
        "dense_test": dense_test,
        "parameters": network.unpruned_share(module, counting),
        "multiply_adds": macs(network, module) / macs(network, dense),
        "filters": sum(state_widths(executor, state).values()) / sum(unit.filters for unit in network.units),
        "fine_tunes": sum(record.fine_tuned for record in state.records),
        "records": len(state.records),
        "pruning_seconds": pruning,
        "probe_seconds": preparation.probe_seconds,
        "final_seconds": final.wall_seconds,
        "flops": sum(record.flops for record in state.records) + final.flops,
        "steps": [record.as_dict() for record in state.records],
    }


def state_widths(executor: TorchExecutor, state: PipelineState) -> dict[str, int]:
    """Filters left by layer."""
    return executor.commit(state.snapshot).widths


def _rest_of_test(plan: Plan, report: Rows) -> Rows:
    """What the split that reports has beside the images that do: with them it is what published figures are of."""
    everything = np.arange(len(plan.dataset.labels[report.split]))
    return Rows(report.split, np.setdiff1d(everything, report.indices))


def _is_bounded(contestant: Contestant) -> bool:
    """Whether the ratio is but an upper bound of what goes."""
    return "aap" in contestant.options


def same_under_less(contestant: Contestant, key: Row, ledger: Ledger) -> Row | None:
    """What a pipeline whose ratio is but an upper bound did under a smaller one that it never came to: it would do the
    same again.
    """
    if not _is_bounded(contestant):
        return None
    for row in ledger.rows:
        ratio = row["key"].get("ratio", 1.0)
        if {**row["key"], "ratio": key["ratio"]} == key and ratio < key["ratio"]:
            if key["part"] == "search":  # a trial that failed might have taken anything
                taken = [trial.get("taken", 1.0) for trial in row["trials"]]
            else:
                taken = [1 - step["unpruned_share"] for step in row["steps"]]
            if max(taken) <= ratio:
                return _copied(row, {"ratio": key["ratio"]}) | {"as_under": ratio}
    return None


def same_as_twin(contestant: Contestant, key: Row, ledger: Ledger) -> Row | None:
    """What the twin did where its threshold was reached at every step: this one would do the same."""
    if not contestant.twin:
        return None
    row = next((row for row in ledger.rows if row["key"] == key | {"pipeline": contestant.twin}), None)
    if row is None or row["fine_tunes"] < row["records"]:
        return None
    return _copied(row, {"threshold": False}) | {"as_twin": contestant.twin}


def same_in_other(setting: Setting, key: Row, ledger: Ledger) -> Row | None:
    """What a search found in the setting whose searches stand for this one's."""
    if not setting.tuned_in:
        return None
    other = next((row for row in ledger.rows if row["key"] == key | {"setting": setting.tuned_in}), None)
    return _copied(other, {}) | {"as_in": setting.tuned_in} if other else None


def _copied(row: Row, options: Row) -> Row:
    """What a run found, for another that differs in these options alone."""
    found = {name: value for name, value in row.items() if name != "key"}
    return found | ({"config": found["config"] | options} if "config" in found else {})


def run_contest(
    setting: Setting,
    contestants: Sequence[Contestant],
    ratios: Sequence[float],
    seeds: Sequence[int],
    ledger: Ledger,
    part: slice,
) -> None:
    """This part of everything that is not in the ledger yet: per pipeline and ratio the search, then the replays."""
    processor_seconds()
    decoded = cached_images()
    by_name = {contestant.name: contestant for contestant in contestants}
    # Those who share a search stay in one process: two would find winners of their own. So do ratios that bind nobody.
    searchers = [contestant for contestant in contestants if not contestant.tuned_as]
    bounded = [[(ratio, own) for ratio in sorted(ratios)] for own in searchers if _is_bounded(own)]
    others = [[task] for task in itertools.product(ratios, searchers) if not _is_bounded(task[1])]
    for ratio, contestant in (
        (ratio, own)
        for ratio, searcher in itertools.chain.from_iterable([*bounded, *others][part])
        for own in contestants
        if searcher.name in (own.name, own.tuned_as)
    ):
        tuner = by_name.get(contestant.tuned_as, contestant)
        key = {"setting": setting.name, "ratio": ratio, "pipeline": tuner.name, "part": "search"}
        known = same_under_less(tuner, key, ledger) or same_in_other(setting, key, ledger)
        found = ledger.once(key, partial(dict, known) if known else partial(search, setting, tuner, ratio, decoded))
        point = plan_of(setting, contestant, ratio, 0).pipeline.Hyperparameters.from_mapping(found["point"])
        for seed in seeds:
            key = {"setting": setting.name, "ratio": ratio, "pipeline": contestant.name, "seed": seed, "part": "replay"}
            known = same_under_less(contestant, key, ledger) or same_as_twin(contestant, key, ledger)
            run = partial(replay, setting, contestant, ratio, seed, point, decoded)
            ledger.once(key, partial(dict, known) if known and known["point"] == point.plain() else run)
