"""What is worked out for a step before its filters go, for the criterion that chooses them and the repair behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from ice_ray.models.partial_forward import reads_and_gives
from ice_ray.pruning.calibration import ScoringContext
from ice_ray.repair.channel_norms import norm_behind
from ice_ray.repair.least_squares import Problem, can_be_refitted, own_norm, problem_of, refit

_READY = "refitted to what the step reads"


def made_ready(context: ScoringContext) -> list[str]:
    """The layers of the step that have been refitted to what they read, if that has been asked for."""
    ready: dict[str, Tensor] = context.known.get(_READY, {})
    return [unit.layer for unit in context.units if f"{unit.layer}.weight" in ready]


def ready_for(context: ScoringContext) -> dict[str, Tensor]:
    """Weights, and statistics of norms, with which the layers of the step best reproduce the dense network's outputs
    from what they read now, before any of their filters goes; by name. Worked out once for all who ask; empty where
    they read what they read there.
    """
    if _READY not in context.known:
        found: dict[str, Tensor] = {}
        runs = {layer: number for number, layer in enumerate(context.norms)}  # a later one reads what an earlier gives
        layers = sorted((unit.layer for unit in context.units), key=lambda layer: runs.get(layer, 0))
        touched = {layer: [layer, *filter(None, [context.norms.get(layer)])] for layer in layers}
        with _restored(context.model, [each for own in touched.values() for each in own]):
            for layer in layers:
                own, filters = context.model.get_submodule(layer), len(context.dense().get_parameter(f"{layer}.weight"))
                is_whole = len(context.model.get_parameter(f"{layer}.weight")) == filters
                may_be = layer not in context.fixed and can_be_refitted(own)
                if is_whole and may_be and not _reads_the_same(context, layer):
                    refit(context, layer, problem_of(context, layer, torch.arange(filters)))
                    values = _tensors(context.model, touched[layer])
                    found |= {name: tensor.clone() for name, tensor in values.items()}
        context.known[_READY] = found
    ready: dict[str, Tensor] = context.known[_READY]
    return ready


def _reads_the_same(context: ScoringContext, layer: str) -> bool:
    """Whether a layer reads what it reads in the dense network: judged by the first images of every process."""
    differs = torch.zeros(1, dtype=torch.float64, device=context.model.get_parameter(f"{layer}.weight").device)
    for number, (images, _) in enumerate(context.batches()):
        dense = context.dense()
        with context.resuming(context.model, number), context.resuming(dense, number):
            read = [reads_and_gives(network, layer, images)[0] for network in (context.model, dense)]
        differs += float(not torch.equal(*read))
        break
    return not float(context.reduction.max(differs))


@contextmanager
def _restored(model: nn.Module, modules: Iterable[str]) -> Iterator[None]:
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


def whole_problem(context: ScoringContext, layer: str) -> Problem | None:
    """That of a layer that reads filters of the step, before any of them has gone, and with the step's layers made
    ready; set up once for all who ask. None where it cannot be refitted, has lost outputs of its own, or does not read
    whole filters in their order.
    """
    own, name = context.model.get_submodule(layer), f"{layer}.weight"
    if not can_be_refitted(own) or len(own.get_parameter("weight")) != len(context.dense().get_parameter(name)):
        return None
    read = [unit for unit in context.units if layer in unit.consumers]
    if len(read) != 1 or inputs_of(own) % len(context.weight(read[0])):
        return None
    if layer not in context.known:
        ready = ready_for(context)
        with _restored(context.model, {name.rpartition(".")[0] for name in ready}):
            assign(context.model, ready)
            context.known[layer] = problem_of(context, layer, torch.arange(len(own.get_parameter("weight"))))
    problem: Problem = context.known[layer]
    return problem


def remaining_problem(
    context: ScoringContext, layer: str, problem: Problem, filters: int, gone: Sequence[int], outputs: Tensor
) -> Problem | None:
    """A whole problem without the inputs that came from filters that have gone since; None where what is left does not
    read as before (a norm over channels stands between).

    Args:
        filters: how many there were.
        outputs: which of the layer's own are left.
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
    kept = outputs.to(device).view(groups, -1)
    rows = kept - kept.new_tensor(range(groups))[:, None] * (problem.fitted.outputs)
    left_of = {name: getattr(problem, name).restricted(columns, rows) for name in ("fitted", "held_out")}
    norm = norm_behind(context.model, layer, own_norm(context, layer))
    return replace(problem, norm=replace(norm, heard=problem.norm.heard[kept.flatten()]), **left_of)


def inputs_of(layer: nn.Module) -> int:
    """Features that a layer reads, all groups together."""
    return layer.get_parameter("weight").shape[1] * int(getattr(layer, "groups", 1))
