"""How a command runs and ends: 0, or one line and 2 (input) or 1 (run)."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from ice_ray.cluster.faults import ended_by, refused
from ice_ray.config.command_line import parse
from ice_ray.config.option_words import in_options
from ice_ray.errors import UserError, in_one_line, told
from ice_ray.observe.output import lasting_output, run_log
from ice_ray.observe.terminal import complain, say


class Described(Protocol):
    """A command's options."""

    @property
    def outset(self) -> str:
        """What is about to be done, for the first line on the terminal."""


Config = TypeVar("Config", bound=Described)


def run(job: Callable[[Config], object], kind: type[Config], program: str, words: Sequence[str]) -> int:
    """Parse the command line, run the job, and say in one line what went wrong; returns the exit code.

    With `--verbose` the whole of what went wrong follows; a run's log has it in any case.

    Args:
        program: what its messages begin with.
        words: its options.
    """
    if threading.current_thread() is threading.main_thread():
        # `ray job stop` sends it, before Ray runs here, too: end as for Ctrl-C, and give back what is held.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_log.end()  # what this process has said before is no part of the job
    with lasting_output():
        try:
            config = parse(kind, words, program)
            say(config.outset)  # before the job is imported, which takes seconds
            job(config)
        except KeyboardInterrupt:
            complain(f"{program}: interrupted")
            return 130
        except Exception as error:
            known = ended_by(error)
            if known is None and "--verbose" not in words and not run_log.is_kept():
                raise  # nobody knows what it is: all of it is needed
            said, code = known or (f"{type(error).__name__}: {error}", 1)
            fault = told(error)
            said = in_options(fault) if isinstance(fault, UserError) else said
            complain(f"{program}: {in_one_line(said)}")
            _show_all(error, "--verbose" in words)
            return code
        finally:
            run_log.end()
    return 0


def _show_all(error: Exception, on_screen: bool) -> None:
    details = getattr(error, "details", "") or "".join(traceback.format_exception(error))
    run_log.add(details)
    if on_screen:
        print(details, file=sys.stderr)


@contextmanager
def paths_named() -> Iterator[None]:
    """A path that the system refuses (too long, no permission, a file where a folder must be) is the user's."""
    try:
        yield
    except OSError as error:
        raise UserError(refused(error)) from error
