"""The user's own objective, `package.module:function`."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from ice_ray.errors import OwnCodeError
from ice_ray.extensions import check_takes, load_own
from ice_ray.guard import guarded
from ice_ray.objectives.base import Candidate, Choice, Objective

_FORM = "an objective's function takes the finished trials and gives a Choice, or the index of the winner"
_MEND = "mend it and go on with --resume, no trial is run again"


class Own(Objective):
    """A function of the user's that takes the finished trials, a sequence of `Candidate` sorted by index.

    It returns a `Choice`, or the index of the winner alone. Samplers minimise the drop.

    Raises:
        UserError: it cannot be imported; or, when it chooses, it raises or returns anything else.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        check_takes(load_own(name, "objective"), name, "objective", ("trials",), _FORM)

    def _best(self, usable: Sequence[Candidate]) -> Choice:
        function = load_own(self._name, "objective")
        with guarded(self._name, "objective", f"; {_MEND}"):
            found = function(list(usable))
        choice = found if isinstance(found, Choice) else Choice(found, f"chosen by {self._name}")
        finished = [candidate.index for candidate in usable]
        index = _whole_number(choice.index)
        if index not in finished or not isinstance(choice.reason, str):
            listed = ", ".join(map(str, finished))
            raise self._refused(
                f"returned {found!r:.200}, not a Choice (or index) of one of the finished trials {listed}"
            )
        return Choice(index, choice.reason)

    def _refused(self, what: str) -> OwnCodeError:
        return OwnCodeError(f"objective '{self._name}' {what}; {_MEND}")


def _whole_number(found: Any) -> int:
    """An int of any library; -1, which no trial has, where it is none."""
    try:
        return -1 if isinstance(found, bool) else operator.index(found)
    except TypeError:
        return -1
