"""Which trial a free device goes on with, where trials share what they have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from ice_ray.cache.actions import Key
from ice_ray.pipelines.dry_run import DryRun


def choose_trial(waiting: Mapping[int, DryRun], at_work: Collection[Key]) -> int | None:
    """The waiting trial to run next, or None where all of them wait for what others are at.

    Trials of which everything is known come first, they take no time. Then the one with the longest way to go, since
    no number of devices shortens a way; of those, one whose next action the most others wait for.

    Args:
        waiting: trials that do not run, by index, each with its dry run.
        at_work: actions that others have claimed.
    """
    sharers = Counter(dry_run.next for dry_run in waiting.values())
    ready = {
        index: dry_run for index, dry_run in waiting.items() if dry_run.next is None or dry_run.next not in at_work
    }

    def urgency(index: int) -> tuple[bool, int, int, int]:
        dry_run = ready[index]
        return dry_run.next is not None, len(dry_run.state.records), -sharers[dry_run.next], index

    return min(ready, key=urgency, default=None)
