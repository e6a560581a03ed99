"""The jobs that run, and how they end: 0, or one line and 2 (input) or 1 (run)."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, TypeVar

from ice_ray.address import storage_path
from ice_ray.cluster.session import ray_session
from ice_ray.cluster.submission import check_lasting, dashboard_url, find_api_server, open_dashboard, uploaded
from ice_ray.config.command import command_of
from ice_ray.config.jobs import ReplayJobConfig
from ice_ray.config.run import RunConfig
from ice_ray.engine.config import Found
from ice_ray.errors import (
    DataError,
    OwnCodeError,
    RunError,
    StorageError,
    TrialFailure,
    UserError,
)
from ice_ray.export_formats import check_format
from ice_ray.extensions import is_own, origin_of
from ice_ray.files import damage_named, write_json
from ice_ray.ingest.datasets import is_own_data, own_function
from ice_ray.invocation import job_words
from ice_ray.models.registry import ModelSpec
from ice_ray.observe.live import waiting
from ice_ray.observe.terminal import say, shown_path, warn
from ice_ray.observe.trackers import check_trackers
from ice_ray.observe.trials_table import read_finished
from ice_ray.workflow.claiming import claimed_replay, claimed_run, refuse_at_work
from ice_ray.workflow.context import JobContext
from ice_ray.workflow.exporting import export_missing
from ice_ray.workflow.given import NAMED, Given
from ice_ray.workflow.ladder import stage_2
from ice_ray.workflow.plan import Plan, make_plan
from ice_ray.workflow.run_folder import RunFolder
from ice_ray.workflow.running import paths_named
from ice_ray.workflow.search_stage import Winner, check_search, search_stage

Config = TypeVar("Config")
_LARGE_UPLOAD = 10e6  # bytes, more than code has; Ray's job server takes no package above 100 MiB


def prune_job(config: RunConfig[Any], given: Given = NAMED) -> RunFolder:
    """Both stages: `ice-ray prune`, `ice_ray.search`; returns the run's folder."""
    with _context(config, "prune", given) as context:
        if context.folder.is_finished:
            path, model = shown_path(context.folder.path), shown_path(context.folder.pruned_model)
            say(f"run '{path}' is finished; its pruned model is in {model}")
            export_missing(context)
            return context.folder
        with _cluster(config.verbose):
            _note_resumption(context, config.resume)
            _both_stages(context)
        return context.folder


def _both_stages(context: JobContext) -> None:
    context.check_resources()  # what stage 2 asks for must be possible before hours of stage 1
    winner = search_stage(context)
    _report_on(context.folder)  # a long stage 2 is to come
    try:
        stage_2(context, winner.hyperparameters, _report_on)
    except (DataError, TrialFailure) as error:  # of images that stage 1 has not met
        raise RunError(f"{error}; {_kept(context)}") from error


def _note_resumption(context: JobContext, resumed: bool) -> None:
    if context.folder.path.is_dir():
        context.keep_log()
        if resumed:
            context.fault_log.note("resumption")


def search_job(config: RunConfig[Any], given: Given = NAMED) -> RunFolder:
    """Stage 1 alone: `ice-ray search`, `ice_ray.search(..., stage_2=False)`; returns the run's folder."""
    with _context(config, "search", given) as context:
        with _cluster(config.verbose):
            _note_resumption(context, config.resume)
            search_stage(context)
            _report_on(context.folder)
        best = shown_path(context.folder.best)
        say(f"winner in {best}; replay it with {shlex.join([*job_words('replay'), '--config', best])}")
        return context.folder


def replay_job(job: ReplayJobConfig[Any], given: Given = NAMED) -> RunFolder:
    """Stage 2 alone, of the winner or of another trial: `ice-ray replay`, `Study.replay`; returns the folder of its
    results.
    """
    find_api_server()
    best = storage_path(job.config).resolve()
    best.check("--config")
    folder = RunFolder(best.parent)
    results = folder if job.trial is None else folder.replay_of(job.trial)
    if job.name is not None:
        results = folder.replay_named(job.name)
    refuse_at_work(folder, results)
    if best.name != folder.best.name:
        raise UserError(f"--config '{job.config}' must be the best.json of a search")
    winner = Winner.read(folder)
    folder.check_given(given)
    folder.check_files(winner.config)
    point = winner.hyperparameters
    if job.trial is not None:
        point = read_finished(folder.trials, job.trial, type(point))
    _check_replay(results, job)
    config = dataclasses.replace(
        winner.config,
        options=job.options,
        target=job.target,
        replay=job.replay,
        wait_for_resources=job.wait_for_resources,
        log_to=job.log_to,
        export=job.export,
        verbose=job.verbose,
    )
    # A ratio was found for one target and for the layers that one choice of options takes.
    is_same = (job.target, job.options) == (winner.config.target, winner.config.options)
    found = folder.found() if is_same else results.replay_found()
    with ExitStack() as held:
        with paths_named():
            claim = held.enter_context(claimed_replay(folder, results))
        _check_replay(results, job)  # one may have begun, and ended, since
        plan = held.enter_context(_planned(config, folder, given, found))
        held.enter_context(_cluster(job.verbose))
        results.path.make_folder()
        if plan.found is not None and not is_same:
            write_json(results.replay_target, dataclasses.asdict(plan.found))
        searched = _commands(folder) if given.code else (command_of("search", winner.config),)
        context = JobContext(plan, results, claim, (*searched, given.code or command_of("replay", job)))
        _note_resumption(context, job.resume)
        stage_2(context, point, _report_on)
        return results


def _commands(search: RunFolder) -> tuple[str, ...]:
    """What made a search, as it is kept there."""
    with damage_named(search.best):
        return tuple(map(str, json.loads(search.best.read_text())["commands"]))


def _check_replay(results: RunFolder, job: ReplayJobConfig[Any]) -> None:
    if results.replay.exists() and not job.resume:
        raise UserError(f"'{results.path}' holds a replay already: go on with it (--resume), or take another --name")


def _report_on(folder: RunFolder) -> None:
    # Loaded here, for it brings scikit-learn and matplotlib, which a wrong word or --help need not wait for.
    from ice_ray.workflow.reporting import report_on

    report_on(folder)


@contextmanager
def _context(config: RunConfig[Any], job: str, given: Given) -> Iterator[JobContext]:
    """The job, planned and its search checked."""
    find_api_server()
    with ExitStack() as held:
        with paths_named():
            check_lasting(storage_path(config.storage).resolve())
            folder, claim = held.enter_context(claimed_run(config, job, given))
        plan = held.enter_context(_planned(config, folder, given, folder.found()))
        context = JobContext(plan, folder, claim, (given.code or command_of(job, config),))
        if not folder.best.is_file():
            with paths_named():
                check_search(context)
        try:
            yield context
        except StorageError as error:
            raise RunError(f"{error}; {_kept(context)}") from error
        except UserError as error:
            if "--resume" in str(error) or not folder.description.is_file():
                raise
            raise OwnCodeError(f"{error}; {_kept(context)}", getattr(error, "details", "")) from error
        except KeyboardInterrupt:
            claim.check()
            if folder.description.is_file():
                say(f"interrupted; {_kept(context)}")
            raise


def _kept(context: JobContext) -> str:
    return f"the run is kept: {context.plan.given.going_on(context.folder.path.name)}"


@contextmanager
def _planned(config: RunConfig[Any], folder: RunFolder, given: Given, found: Found | None) -> Iterator[Plan]:
    """The plan, made before Ray starts, unless the data are of the user's own, which live in a Ray session."""
    trained = folder.dense_weights if folder.dense_weights.is_file() else None
    name_own_code(config, given)
    for format in config.export:
        check_format(format)
    own = given.data is None and is_own_data(config.data)
    if own:
        own_function(config.data)  # a wrong name need not wait for Ray
    with ray_session(config.verbose) if own else nullcontext():
        with paths_named(), waiting("looking at the model and the data"):
            plan = make_plan(config, trained, found, given)
            folder.check_labels(plan.dataset.labels_digest)
        if plan.frozen_note:
            say(plan.frozen_note)
        check_trackers(config.log_to)  # last, for it may make a file
        for note in plan.dataset.notes:
            warn(f"data: {note}" if given.data is not None else f"data '{config.data}': {note}")
        yield plan


@contextmanager
def _cluster(verbose: bool) -> Iterator[None]:
    """A Ray session, with what about it should be known said first."""
    with ExitStack() as session:
        with waiting("starting Ray"):
            session.enter_context(ray_session(verbose))
        if open_dashboard(url := dashboard_url()):
            warn(
                f"the cluster's dashboard at {url} answers anyone who reaches it, and whoever does can run code here: "
                "start the cluster with RAY_AUTH_MODE=token (docs/security.md)"
            )
        sizes = uploaded()
        if (total := sum(size for size, _ in sizes)) > _LARGE_UPLOAD:
            largest = ", ".join(f"{name} ({size / 1e6:.1f} MB)" for size, name in sizes[:3])
            warn(
                f"{total / 1e6:.0f} MB of the working directory were uploaded with this job: {largest}"
                f"{' and more' * (len(sizes) > 3)}. Ray refuses a package above 100 MiB: name in .rayignore what is "
                "not code (docs/cluster.md)"
            )
        yield


def name_own_code(config: RunConfig[Any], given: Given) -> None:
    """Say which functions of the user's a job will call, and where they lie.

    Raises:
        UserError: one lies neither in the working directory nor among the installed packages.
    """
    own = {
        "model": given.model is None and ModelSpec(config.model, 1).is_users_own,
        "data": given.data is None and is_own_data(config.data),
        **{option: is_own(name) for option, name in config.options.own_code.items()},
        "search.objective": is_own(config.search.objective),
    }
    names = config.as_dict() | {"search.objective": config.search.objective}
    for option in (option for option, is_theirs in own.items() if is_theirs and is_own(names[option])):
        say(f"--{option} {names[option]}: your own code, from {origin_of(names[option], option.rpartition('.')[2])}")
