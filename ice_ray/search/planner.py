"""Which trial a free device goes on with, where trials share what they have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from ice_ray.engine.memory import Key
from ice_ray.pipelines.following import Course


def choose_trial(waiting: Mapping[int, Course], at_work: Collection[Key]) -> int | None:
    """The waiting trial to run next, or None where all of them wait for what others are at.

    Trials of which everything is known come first, they take no time. Then the one with the longest way to go, since
    no number of devices shortens a way; of those, one whose next action the most others wait for.

    Args:
        waiting: trials that do not run, by index, each with its course as far as it is known.
        at_work: actions that others have claimed.
    """
    sharers = Counter(course.next for course in waiting.values())
    ready = {index: course for index, course in waiting.items() if course.next is None or course.next not in at_work}

    def urgency(index: int) -> tuple[bool, int, int, int]:
        course = ready[index]
        return course.next is not None, len(course.state.records), -sharers[course.next], index

    return min(ready, key=urgency, default=None)
