"""The user's own pipeline, `package.module:function`: asked as any other, its answers looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ice_ray.engine.cost import Cost
from ice_ray.engine.executor import Executor
from ice_ray.errors import OwnCodeError
from ice_ray.guard import blaming
from ice_ray.pipelines.base import Pipeline
from ice_ray.pipelines.records import PipelineState, Preparation

if TYPE_CHECKING:
    from ice_ray.engine.torch_executor import TorchExecutor


@dataclass(frozen=True, kw_only=True)
class OwnPipeline(Pipeline):
    """Stands for the user's, `own` of class `name`, and refuses answers that are none.

    What it is told of its actions (a fine-tune that diverged, storage that failed) passes through it: only what is
    raised in its own code is its fault.

    Raises:
        OwnCodeError: it raises, or a step of it is none.
    """

    name: str
    own: Pipeline

    def prepare(self, executor: TorchExecutor, probes: bool) -> Preparation:
        with self._blamed():
            found: Any = self.own.prepare(executor, probes)
        if not isinstance(found, Preparation):
            raise self._refused("prepare", found, "a Preparation")
        return found

    def begin(self, executor: Executor) -> PipelineState:
        with self._blamed():
            state = self.own.begin(executor)
        return self._state("begin", state)

    def length(self, steps: int) -> int:
        with self._blamed():
            length: Any = self.own.length(steps)
        if isinstance(length, bool) or not isinstance(length, int) or length < 1:
            raise self._refused("length", length, "a whole number of rounds, at least 1")
        return length

    def is_done(self, executor: Executor, state: PipelineState) -> bool:
        with self._blamed():
            return bool(self.own.is_done(executor, state))

    def is_pruned(self, executor: Executor, state: PipelineState) -> bool:
        with self._blamed():
            return bool(self.own.is_pruned(executor, state))

    def advance(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        with self._blamed():
            after = self.own.advance(executor, state, preparation)
        if len(self._state("advance", after).records) <= len(state.records):
            raise OwnCodeError(f"pipeline '{self.name}': advance must add a record, or the run would never end")
        return after

    def step(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        with self._blamed():
            return self._state("step", self.own.step(executor, state, preparation))

    def finish(self, executor: Executor, state: PipelineState, preparation: Preparation) -> tuple[PipelineState, Cost]:
        with self._blamed():
            ended: Any = self.own.finish(executor, state, preparation)
        if not (isinstance(ended, tuple) and len(ended) == 2 and isinstance(ended[1], Cost)):
            raise self._refused("finish", ended, "a PipelineState and a Cost")
        return self._state("finish", ended[0]), ended[1]

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        with blaming({"pipeline": self.name}):
            yield

    def _state(self, method: str, found: Any) -> PipelineState:
        if not isinstance(found, PipelineState):
            raise self._refused(method, found, "a PipelineState")
        return found

    def _refused(self, method: str, found: Any, wanted: str) -> OwnCodeError:
        return OwnCodeError(f"pipeline '{self.name}': {method} returned {found!r:.80}, not {wanted}")
