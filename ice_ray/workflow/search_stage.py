"""Stage 1, from images to best.json."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from ray import tune

from ice_ray.cluster.capacity import sharers, wanted
from ice_ray.cluster.storage import seen_by_all
from ice_ray.cluster.workload import DenseModel, Workload
from ice_ray.config.run import RunConfig, config_from_dict
from ice_ray.data.batches import check_epoch
from ice_ray.data.config import IMAGENET_MEAN, IMAGENET_STD
from ice_ray.environment import environment
from ice_ray.errors import UserError
from ice_ray.files import damage_named, write_json
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.ingest.datasets.base import Labels
from ice_ray.models.registry import ModelSpec
from ice_ray.models.weights import load_state_dict
from ice_ray.objectives import Candidate, objective_named, pareto_front
from ice_ray.observe.live import LiveCallback, SearchView, shown_live
from ice_ray.observe.progress import ProgressCallback
from ice_ray.observe.tensorboard import TensorBoardCallback
from ice_ray.observe.terminal import describe_front, describe_preparation, say, say_faults, shown_path, warn
from ice_ray.observe.trackers import tracked
from ice_ray.observe.trackers.runs import TrackerCallback
from ice_ray.observe.trials_table import write_trials
from ice_ray.pipelines.chance import no_better_than_chance
from ice_ray.pipelines.harm import harm_of
from ice_ray.pipelines.registry import pipeline_named
from ice_ray.tensor_files import write_tensors
from ice_ray.trials.prepare import SearchPreparation, prepare_search, train_dense
from ice_ray.trials.reports import step_reports
from ice_ray.trials.run import (
    SharedWork,
    TrialResult,
    earlier_trials,
    finished_candidates,
    point_log,
    run_search,
    work_of,
)
from ice_ray.wording import counted
from ice_ray.workflow.context import JobContext
from ice_ray.workflow.given import NAMED, Given
from ice_ray.workflow.plan import Plan
from ice_ray.workflow.reporting import compared
from ice_ray.workflow.run_folder import RunFolder

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Winner:
    """What best.json holds that stage 2 needs."""

    config: RunConfig[Any]
    hyperparameters: Hyperparameters

    @classmethod
    def read(cls, folder: RunFolder) -> Winner:
        """The winner of a finished search.

        Raises:
            UserError: no such file, or it is damaged.
        """
        path = folder.best
        if not path.is_file():
            raise UserError(f"'{path}': no such file; a search writes it (`ice-ray search`)")
        with damage_named(path):
            content = json.loads(path.read_text())
            values, hyperparameters = content["config"], content["hyperparameters"]
        config = config_from_dict(values, str(path))
        return cls(config, pipeline_named(config.pipeline).Hyperparameters.from_mapping(hyperparameters))


def check_search(context: JobContext) -> None:
    """What can be known of stage 1 before Ray starts: its points, and that its objective is there.

    Raises:
        UserError: what is wrong with them.
    """
    config = context.plan.config
    objective_named(config.search.objective, config.search.max_drop)
    point_log(context.folder.path, config.pipeline).check(context.plan.proposals.known)


def dense_model(context: JobContext) -> DenseModel:
    """The dense model in the object store; trained first where the plan has no weights. One that was trained, or given
    as an object, is kept in the folder.
    """
    plan, folder = context.plan, context.folder
    if plan.weights is not None:
        if plan.given.model is not None and not folder.search.dense_weights.is_file():
            write_tensors(folder.search.dense_weights, plan.weights)
        return DenseModel.share(plan.spec, plan.weights)
    if folder.search.dense_weights.is_file():
        return DenseModel.share(plan.spec, load_state_dict(folder.search.dense_weights))
    say(f"no weights given: training {plan.config.model} on {plan.config.data} first")
    with context.timed("training the dense model"):
        images = context.load(plan.roles.train)
        gpus = context.trial_gpus()
        weights = train_dense(plan.spec, images, plan.preprocessing, plan.config.seed, plan.config.search.cpus, gpus)
    write_tensors(folder.dense_weights, weights)
    return DenseModel.share(plan.spec, weights)


def search_stage(context: JobContext) -> Winner:
    """Run stage 1 and write trials.parquet and best.json; where best.json is there already, read it.

    The run's folder is made once the images are decoded: wrong input leaves none.
    """
    plan, config, folder = context.plan, context.plan.config, context.folder
    if folder.best.is_file():
        winner = Winner.read(folder)
        say("stage 1 is done: going on from its best.json")
        context.times |= json.loads(folder.best.read_text()).get("seconds", {})
        return winner
    gpus = context.trial_gpus()
    with context.timed("stage 1: reading images"):
        rows = plan.search_rows()
        train, validation = (context.load(each) for each in rows)
        check_epoch(train.count, processes=1)  # some may have been skipped
    folder.create(config, plan.dataset.labels_digest, plan.given)
    context.keep_log()
    if plan.found is not None:
        write_json(folder.target, dataclasses.asdict(plan.found))
        for rung in plan.rungs():
            assert rung.reached is not None
            say(f"--target {rung.config.target}: {rung.reached.words}")
        if plan.found.above is not None:
            say("a ladder: stage 1 prunes to its last rung, stage 2 walks down")
    model = dense_model(context)
    workload = context.workload(model, train, validation, plan.search_settings)
    say(
        f"stage 1: {counted(plan.proposals.total, 'trial')} ({plan.proposals.origin}) of "
        f"{_rounds(plan)}, {train.count} training and {counted(validation.count, 'validation image')}, "
        f"run folder {shown_path(folder.path)}"
    )
    probe = ", freezing probe" if plan.probes else ""
    with context.timed(f"stage 1: original accuracy{probe}, calibration"):
        prepared = _prepared(context, workload, gpus)
    say(describe_preparation(prepared.preparation))
    deciding = plan.dataset.labels[rows[1].split][rows[1].indices]
    doubt = doubt_of_dense(config, prepared.preparation.original_accuracy, deciding, plan.given)
    if doubt is not None:
        warn(doubt)
    say(f"  training images {prepared.placement}")
    with context.timed("stage 1: trials", watched=True):
        deaths = config.search.max_failures
        objective = objective_named(config.search.objective, config.search.max_drop)
        retrains = any(point.final_epochs for point in plan.space.points())
        view = SearchView(
            plan.proposals.total, _lengths(plan)[-1], lambda found: objective.choose(found).index, retrains
        )
        kind, settings = plan.space.kind, compared(plan)
        events = TensorBoardCallback(folder.tensorboard / "search", folder.path.name, deaths, kind, settings)
        earlier = _earlier(context, prepared)
        for told in earlier:
            events.catch_up(*told)
        callbacks: list[tune.Callback] = [
            events,
            ProgressCallback(plan.proposals.total, deaths, kind),
            LiveCallback(view, kind),
        ]
        at_once = min(plan.proposals.total, config.search.concurrent or plan.proposals.total)
        together = min(at_once, sharers(config.search.cpus, gpus))
        if config.search.clock == "wall" and together > 1:
            shared = "a GPU" if gpus else "the CPUs of a node"
            warn(
                f"up to {together} trials share {shared}, so how long one takes depends on what the others do; by "
                "--search.clock work it does not, nor with --search.concurrent 1"
            )
        with (
            wanted(context.trial(at_once)),
            seen_by_all(folder.path),
            tracked(config.log_to, folder.path.name, folder.path) as trackers,
            shown_live(view.render),
        ):
            for tracker in trackers:
                callbacks.append(own := TrackerCallback(tracker, deaths, kind))
                for told in earlier:
                    own.catch_up(*told)
            results = run_search(plan.proposals, workload, prepared, config.search, gpus, folder.path, callbacks)
    context.claim.check()
    write_trials(folder.trials, results)
    work = work_of(results, folder.path)
    say(f"  {work}")
    context.fault_log.note_retries()
    say_faults(context.fault_log)
    return _write_winner(context, results, prepared, work)


def _earlier(
    context: JobContext, prepared: SearchPreparation
) -> list[tuple[str, list[dict[str, Any]], dict[str, float], bool]]:
    """What an earlier part of the run has done: of each trial its name, reports, hyperparameters, whether it ended."""
    clock, speed = context.plan.config.search.clock, prepared.flops_per_second
    return [
        (
            name,
            step_reports(progress.state.records, progress.finished, clock, speed, progress.inherited),
            point.as_dict(),
            progress.has_ended,
        )
        for name, point, progress in earlier_trials(context.folder.path, context.plan.config.pipeline)
    ]


def _rounds(plan: Plan) -> str:
    lengths = _lengths(plan)
    one = counted(lengths[0], "pruning step")
    return one if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]} pruning steps"


def _lengths(plan: Plan) -> list[int]:
    return sorted({plan.length_with(point) for point in plan.space.points()})


def _prepared(context: JobContext, workload: Workload, gpus: float) -> SearchPreparation:
    """Computed once per search, resumed ones included: every trial is judged by the same clock and ranking."""
    search, path = context.plan.config.search, context.folder.preparation
    if path.is_file():
        try:
            return SearchPreparation.load(path)
        except UserError:
            if search.work_speed is None:
                raise  # the clock's speed was measured, and would be another now
            context.fault_log.note("damaged file", path.name)
    point = context.plan.space.points()[0]
    prepared = prepare_search(workload, point, context.plan.probes, search.cpus, gpus, search.work_speed)
    prepared.save(path)
    return prepared


def _write_winner(
    context: JobContext, results: tuple[TrialResult, ...], prepared: SearchPreparation, work: SharedWork
) -> Winner:
    plan, config, folder = context.plan, context.plan.config, context.folder
    speed = prepared.flops_per_second
    candidates = finished_candidates(results, config.search.clock, speed)
    failed = [result for result in results if result.failure]
    if failed:
        warn(
            f"{len(failed)} of {counted(len(results), 'trial')} failed; first: {failed[0].failure} "
            f"[{failed[0].hyperparameters}]"
        )
    harmed = {result.index: harm_of(result.records, type(result.hyperparameters)) for result in results}
    worse = {index: harm for index, harm in harmed.items() if harm is not None}
    for index, harm in list(worse.items())[:1]:
        warn(f"training made {len(worse)} of {counted(len(results), 'trial')} worse; in trial {index}, {harm.for_jobs}")
    choice = objective_named(config.search.objective, config.search.max_drop).choose(candidates)
    winner = results[choice.index]
    (chosen,) = (candidate for candidate in candidates if candidate.index == choice.index)
    say(f"winner: trial {choice.index} [{winner.hyperparameters}]: {choice.reason}")
    front = pareto_front(candidates)
    say(f"  front of time and drop, fastest first: {describe_front(front)}")
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "hyperparameters": winner.hyperparameters.plain(),
        "trial": choice.index,
        "reason": choice.reason,
        "drop": chosen.drop,
        "pruning_seconds": chosen.pruning_seconds,
        "cost": chosen.cost,
        "front": [_entry(candidate, results) for candidate in front],
        "clock": config.search.clock,
        "flops_per_second": speed,
        "device": prepared.device,
        "original_accuracy": prepared.preparation.original_accuracy,
        "weight_changes": prepared.preparation.weight_changes,
        "work": dataclasses.asdict(work),
        "trials": {"finished": len(results) - len(failed), "failed": len(failed)},
        "fault_log": context.fault_log.counts(),
        "seconds": context.times,
        "found": plan.found.words if plan.found is not None else None,
        "config": config.as_dict(),
        "commands": context.commands,
        **environment(),
    }
    write_json(folder.best, content)
    return Winner(config, winner.hyperparameters)


def _entry(candidate: Candidate, results: tuple[TrialResult, ...]) -> dict[str, Any]:
    """A trial of the front: `ice-ray replay --trial` replays it."""
    return {
        "trial": candidate.index,
        "pruning_seconds": candidate.pruning_seconds,
        "drop": candidate.drop,
        "hyperparameters": results[candidate.index].hyperparameters.plain(),
    }


def doubt_of_dense(config: RunConfig[Any], accuracy: float, labels: Labels, given: Given = NAMED) -> str | None:
    """A line on a dense model that may as well be guessing, with what is to be looked at first; None where it may not.

    Args:
        accuracy: on the validation images, percent.
        labels: of those.
    """
    if pipeline_named(config.pipeline).trains_anew:
        return None
    doubt = no_better_than_chance(accuracy, labels)
    if doubt is None:
        return None
    if given.model is not None or given.preprocessing is not None or given.data is not None:
        return (
            f"{doubt}; has the model its trained weights, was it trained on images of this preprocessing (mean and "
            "std), and with this order of the classes?"
        )
    untrained = config.weights is None and ModelSpec(config.model, 2).is_users_own
    are_defaults = (config.mean, config.std) == (IMAGENET_MEAN, IMAGENET_STD)
    dress = "--mean and --std are ImageNet's: was it trained with those" if are_defaults else "are --mean and --std its"
    first = f"no --weights are given: does {config.model} return a trained network? Else: " if untrained else ""
    return f"{doubt}; {first}{dress}, and with this order of the classes?"
