"""What is worked out for a step before its filters go, for the criterion that chooses them and the repair behind it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from ice_ray.models.partial_forward import reads_and_gives
from ice_ray.repair.context import RepairContext
from ice_ray.repair.least_squares import Problem, can_be_refitted, norm_behind, problem_of, refit

_FEW = 4
"""Images that tell whether networks differ."""


class StepProblems:
    """The least-squares problems of one step's network before any of its filters goes: each worked out for the first
    who asks, and kept for the others.
    """

    def __init__(self) -> None:
        self._ready: dict[str, dict[str, Tensor]] | None = None
        self._readers: dict[str, Problem] = {}

    def ready(self, context: RepairContext) -> Mapping[str, Mapping[str, Tensor]]:
        """By layer of the step, in the order in which they run: weights, and statistics of its norm, by name, with
        which it best reproduces the dense network's outputs from what it reads now, those before it made ready.
        Without layers that read what they read there, and those that have lost filters before: these have been trained
        since, with what reads them. In a step that reaches beyond a block, none, as all of its layers are refitted in
        the end.
        """
        if context.is_spread:
            return {}
        if self._ready is None:
            found: dict[str, dict[str, Tensor]] = {}
            norms, fixed = context.structure.norms, context.structure.fixed
            whole = [unit.layer for unit in context.units if len(context.kept[unit.layer]) == unit.filters]
            layers = sorted(whole, key=context.structure.order.index)
            touched = {layer: [layer, *filter(None, [norms.get(layer)])] for layer in layers}
            with restored(context.model, [each for own in touched.values() for each in own]):
                for layer in layers:
                    may_be = layer not in fixed and can_be_refitted(context.model.get_submodule(layer))
                    if may_be and not _reads_the_same(context, layer):
                        refit(context, layer, problem_of(context, layer))
                        values = _tensors(context.model, touched[layer])
                        found[layer] = {name: tensor.clone() for name, tensor in values.items()}
            self._ready = found
        return self._ready

    def of_readers(self, context: RepairContext, layers: Collection[str]) -> dict[str, Problem]:
        """Those of several layers that read filters of the step, where they have one."""
        found = {}
        with context.images.moving():
            for layer in sorted(layers, key=context.structure.order.index) if context.is_spread else layers:
                if context.is_spread:
                    context.images.move_to(layer)
                if (problem := self.of_reader(context, layer)) is not None:
                    found[layer] = problem
        return found

    def of_reader(self, context: RepairContext, layer: str) -> Problem | None:
        """That of a layer that reads filters of the step, with the step's layers made ready. None where it cannot be
        refitted, or does not read whole filters in their order.
        """
        own = context.model.get_submodule(layer)
        if not can_be_refitted(own):
            return None
        read = [unit for unit in context.units if layer in unit.consumers]
        if any(context.columns(unit, layer) is None for unit in read) or (len(read) > 1 and not context.is_spread):
            return None
        if layer not in self._readers:
            values = {name: value for each in self.ready(context).values() for name, value in each.items()}
            with restored(context.model, {name.rpartition(".")[0] for name in values}):
                assign(context.model, values)
                self._readers[layer] = problem_of(context, layer)
        return self._readers[layer]


def _reads_the_same(context: RepairContext, layer: str) -> bool:
    """Whether a layer reads what it reads in the dense network: judged by a few images of every process."""
    dense = context.dense()
    if context.model is dense:
        return True
    differs = torch.zeros(1, dtype=torch.float64, device=context.model.get_parameter(f"{layer}.weight").device)
    if len(some := context.images.held.nonzero().flatten()[:_FEW]):
        read = list[Tensor]()
        for network in (context.model, dense):
            with context.images.passing(network, some) as images:
                read.append(reads_and_gives(network, layer, images)[0])
        differs += float(not torch.equal(*read))
    return not float(context.reduction.max(differs))


@contextmanager
def restored(model: nn.Module, modules: Iterable[str]) -> Iterator[None]:
    """Whatever the block does to weights and statistics of these modules is undone."""
    kept = {name: tensor.clone() for name, tensor in _tensors(model, modules).items()}
    try:
        yield
    finally:
        assign(model, kept)


def assign(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Give weights and statistics, by name, their values, in place."""
    own = _tensors(model, {name.rpartition(".")[0] for name in values})
    for name, value in values.items():
        own[name].copy_(value)


def _tensors(model: nn.Module, modules: Iterable[str]) -> dict[str, Tensor]:
    return {
        name: tensor
        for module in modules
        for name, tensor in model.get_submodule(module).state_dict(prefix=f"{module}.").items()
    }


def remaining_problem(
    context: RepairContext, layer: str, problem: Problem, filters: int, gone: Sequence[int]
) -> Problem | None:
    """A problem without the inputs that came from filters that have gone since; None where what is left does not
    read as before (a norm over channels stands between).

    Args:
        filters: how many there were.
    """
    own = context.model.get_submodule(layer)
    groups, device = int(getattr(own, "groups", 1)), problem.given.device
    features = problem.given.shape[1 if isinstance(own, nn.Conv2d) else -1]
    lost = torch.zeros(filters, dtype=torch.bool, device=device)
    lost[list(gone)] = True
    left = (~lost).repeat_interleave(features // filters).nonzero()[:, 0]
    now, _ = reads_and_gives(context.model, layer, problem.images)
    expected = problem.given.index_select(1 if isinstance(own, nn.Conv2d) else problem.given.ndim - 1, left)
    differs = torch.ones(1, dtype=torch.float64, device=device)
    if now.shape == expected.shape:
        differs *= float(not torch.allclose(now.float(), expected.float(), rtol=1e-3, atol=1e-4))
    if float(context.reduction.max(differs)):
        return None
    area = own.get_parameter("weight")[0, 0].numel()
    within = left.view(groups, -1) % (features // groups)
    columns = (within[:, :, None] * area + torch.arange(area, device=device)).flatten(1)
    outputs = context.outputs(layer)
    kept = torch.searchsorted(problem.outputs, outputs).view(groups, -1)
    rows = kept - kept.new_tensor(range(groups))[:, None] * problem.fitted.outputs
    left_of = {name: getattr(problem, name).restricted(columns, rows) for name in ("fitted", "held_out")}
    norm = norm_behind(context.model, layer, context.structure.own_norm(layer))
    norm = replace(norm, heard=problem.norm.heard[kept.flatten()])
    return replace(problem, norm=norm, outputs=outputs, **left_of)
