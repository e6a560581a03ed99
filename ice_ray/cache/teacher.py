"""The answers that the teacher gives to the batches of a fine-tune, kept for other fine-tunes on the same batches."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from ice_ray.models.answers import logits_of

MOST_BYTES = 256e6
"""Of answers that one process keeps at hand."""
Mark = float | torch.cuda.Event


@dataclass
class TeacherAnswers:
    """The teacher's answers to the batches of one fine-tune, in order.

    Attributes:
        logits: (images of the batch, classes) float32 each.
        seconds: what each answer took where it was computed.
    """

    logits: list[Tensor] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self.logits)


class TeacherCache(Protocol):
    """The teacher's answers by key, shared by fine-tunes on the same batches."""

    def get(self, key: str) -> TeacherAnswers | None:
        """The answers of that key, or None."""

    def put(self, key: str, answers: TeacherAnswers) -> None:
        """Keep the answers of that key."""


class LocalTeacherCache:
    """A cache inside one process: the most recently used answers, up to a number of bytes."""

    def __init__(self, limit: float = MOST_BYTES) -> None:
        self._answers: OrderedDict[str, TeacherAnswers] = OrderedDict()
        self._limit = limit

    def get(self, key: str) -> TeacherAnswers | None:
        if key in self._answers:
            self._answers.move_to_end(key)
        return self._answers.get(key)

    def put(self, key: str, answers: TeacherAnswers) -> None:
        self._answers[key] = answers
        self._answers.move_to_end(key)
        while sum(each.nbytes for each in self._answers.values()) > self._limit:
            self._answers.popitem(last=False)


class Teacher:
    """Answers the batches of one fine-tune in order: known answers first, the rest from the model.

    Args:
        model: the unpruned network in eval mode.
        known: earlier answers to the same batches; moved to the device at once.
        device: where the answers are needed.
        limit: bytes of new answers to keep; those beyond are not kept.
    """

    def __init__(
        self, model: nn.Module, known: TeacherAnswers | None, device: torch.device, limit: float = MOST_BYTES
    ) -> None:
        self._model, self._device, self._room = model, device, limit
        self._known = known or TeacherAnswers()
        self._at_hand = [answer.to(device) for answer in self._known.logits]
        self._given: list[tuple[Tensor, Mark, Mark]] = []
        self._asked = 0

    def __call__(self, batch: Tensor) -> Tensor:
        """(images, classes) float32."""
        place, self._asked = self._asked, self._asked + 1
        if place < len(self._at_hand):
            return self._at_hand[place]
        began = self._mark()
        answer = logits_of(self._model(batch)).float()
        self._room -= answer.nbytes
        if self._room >= 0:
            self._given.append((answer, began, self._mark()))
        return answer

    @property
    def inherited_seconds(self) -> float:
        """The time that the known answers would have taken."""
        return sum(self._known.seconds[: self._asked])

    def answers(self) -> TeacherAnswers | None:
        """All answers, on the CPU; None where no new one was computed."""
        if not self._given:
            return None
        logits = [answer.to("cpu") for answer, _, _ in self._given]
        seconds = [_seconds(began, ended) for _, began, ended in self._given]
        return TeacherAnswers([*self._known.logits, *logits], [*self._known.seconds, *seconds])

    def _mark(self) -> Mark:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _seconds(began: Mark, ended: Mark) -> float:
    if isinstance(began, float) or isinstance(ended, float):
        assert isinstance(began, float)
        assert isinstance(ended, float)
        return ended - began
    return float(began.elapsed_time(ended)) / 1000
