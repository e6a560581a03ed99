"""The user's own objective, `package.module:function`."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from ice_ray.errors import UserError
from ice_ray.extensions import load_own
from ice_ray.objectives.base import Candidate, Choice, Objective


class Own(Objective):
    """A function of the user's that takes the finished trials, a sequence of `Candidate` sorted by index.

    It returns a `Choice`, or the index of the winner alone. Samplers minimise the drop.

    Raises:
        UserError: it cannot be imported; or, when it chooses, it raises or returns anything else.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        load_own(name, "objective")

    def _best(self, usable: Sequence[Candidate]) -> Choice:
        function = load_own(self._name, "objective")
        try:
            found = function(list(usable))
        except Exception as error:  # the user's code may raise anything
            raise self._refused(f"raised {type(error).__name__}: {error}") from error
        choice = found if isinstance(found, Choice) else Choice(found, f"chosen by {self._name}")
        finished = [candidate.index for candidate in usable]
        index = _whole_number(choice.index)
        if index not in finished or not isinstance(choice.reason, str):
            listed = ", ".join(map(str, finished))
            raise self._refused(f"returned {found!r}, not a Choice (or index) of one of the finished trials {listed}")
        return Choice(index, choice.reason)

    def _refused(self, what: str) -> UserError:
        return UserError(f"objective '{self._name}' {what}; mend it and go on with --resume, no trial is run again")


def _whole_number(found: Any) -> int:
    """An int of any library; -1, which no trial has, where it is none."""
    try:
        return -1 if isinstance(found, bool) else operator.index(found)
    except TypeError:
        return -1
