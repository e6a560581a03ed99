"""A job's claim of what it writes to: a run, or the replay of one of its trials, and nobody else's until it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any

from ice_ray.claims.claim import Claim, HeldError, await_unheld, claimed, nobody_s, refuse_held
from ice_ray.config.run import RunConfig
from ice_ray.invocation import CONSOLE
from ice_ray.observe.terminal import say
from ice_ray.workflow.given import NAMED, Given
from ice_ray.workflow.run_folder import RunFolder, check_run, run_folder

BOTH_STAGES, REPLAY = "prune", "replay"


def _owner(job: str) -> str:
    """Who holds a claim, in the words of its refusal; the same however the job was started."""
    return f"{CONSOLE} {job}"


@contextmanager
def claimed_run(config: RunConfig[Any], job: str, given: Given = NAMED) -> Iterator[tuple[RunFolder, Claim]]:
    """The folder of this run, not made yet, or with `--resume` one that holds the same run; and the claim to it.

    Raises:
        UserError: another job is at it, the name is taken, or there is nothing to resume, or another run.
    """
    with ExitStack() as held:
        if config.name is None:
            folder, claim = _unnamed(config, job, given, held)
        else:
            folder = run_folder(config, config.name)
            refuse_held(folder.path)  # what it has made by now is no reason to resume it
            check_run(folder, config, given)
            if config.resume and job == BOTH_STAGES and folder.is_finished:
                claim = nobody_s(folder.path)  # nothing is left to write, and the storage may take nothing any more
            else:
                claim = held.enter_context(claimed(folder.path, _owner(job), say))
                check_run(folder, config, given)  # it may have been made since
        yield folder, claim


def _unnamed(config: RunConfig[Any], job: str, given: Given, held: ExitStack) -> tuple[RunFolder, Claim]:
    """Named after the second, and numbered where others began in the same one."""
    name = datetime.now(UTC).strftime("ice-%Y%m%d-%H%M%S")
    for number in count(1):
        folder = run_folder(config, name if number == 1 else f"{name}-{number}")
        if folder.is_there:
            continue
        check_run(folder, config, given)
        with ExitStack() as attempt:
            try:
                claim = attempt.enter_context(claimed(folder.path, _owner(job), say))
            except HeldError:
                continue
            if not folder.is_there:
                held.push(attempt.pop_all())
                return folder, claim
    raise AssertionError("there is always another number")


@contextmanager
def claimed_replay(folder: RunFolder, results: RunFolder) -> Iterator[Claim]:
    """The claim to a replay's results. Replays of several trials may go on beside each other, and beside the winner's;
    a search may not: what they read is still being written.

    Raises:
        UserError: another job is at them, or at the search.
    """
    with claimed(results.path, _owner(REPLAY), say) as claim:
        if results != folder:
            await_unheld(folder.path, say, but=_owner(REPLAY))
        yield claim


def refuse_at_work(folder: RunFolder, results: RunFolder) -> None:
    """Raises UserError: a job is at the results, or at a search that has yet to end, which says more than what is there
    of them, or is not there yet.
    """
    refuse_held(results.path)
    if not folder.best.is_file():
        refuse_held(folder.path)
