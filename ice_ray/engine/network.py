"""The dense network of a run, traced once: what can be pruned, what can be frozen, what a layer costs."""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import nn

from ice_ray.engine.actions import Counting
from ice_ray.engine.work import multiply_adds
from ice_ray.errors import UserError
from ice_ray.models.attention import with_open_heads
from ice_ray.models.copies import copied
from ice_ray.models.frozen import freeze, frozen_parameters
from ice_ray.models.inference import foldable_norms, folded
from ice_ray.models.layout import Layout, find_layout, lay_out
from ice_ray.models.partial_forward import Followed, follow
from ice_ray.models.resume import ResumePoint, find_resume_points
from ice_ray.models.ties import check_overlaps, join, ties_of
from ice_ray.models.trace import LayerTrace, trace_layers, unused_parameters, upstream_parameters
from ice_ray.models.units import PrunableUnit, PruningStep
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.anatomy import dissect, is_layer
from ice_ray.pruning.footprint import Footprint
from ice_ray.pruning.freezing import freezable_layers
from ice_ray.pruning.removal import Left, shrink_to
from ice_ray.pruning.selection import Selection
from ice_ray.pruning.verification import faulty_layers, untrainable_layers


class DenseNetwork:
    """A trained module and what a trace of it tells.

    Args:
        module: with its trained weights; it is copied, never changed.
        image_shape: (C, H, W) of the images it classifies.
        selection: which of the prunable layers to prune.
        amounts: how many filters go; units that lose none have no part in the steps. Without them all units have.
        layout: of its weights and images in memory; without one, the one found by trying.

    Attributes:
        amounts: as given.
        steps: what loses filters, in order.
        units: of all steps; of a rung, of all of its ladder's.
        frozen: parameters, by name, that are given with requires_grad=False.
        fixed_layers: modules, by path, that have parameters of their own among `fixed`.
        fixed: those of them that keep their values. Where all are frozen, as for inference, none is: nothing could be
            done.
        whole_heads: attentions that have been replaced so that heads could go, and of which none does with these
            amounts, with how many heads they have.

    Raises:
        UserError: nothing in it may be pruned, or the amounts do not fit it.
    """

    def __init__(
        self,
        module: nn.Module,
        image_shape: tuple[int, int, int],
        selection: Selection = Selection(),
        amounts: Amounts | None = None,
        layout: Layout | None = None,
    ) -> None:
        check_overlaps(module)
        self.amounts = amounts
        own, self._ties = copied(module), ties_of(module)  # a copy need not have them
        join(own, self._ties)
        closed = with_open_heads(own) if selection.heads else {}
        self._ties = ties_of(own) if closed else self._ties
        self._module = own.to("cpu", torch.float32).eval()
        join(self._module, self._ties)
        self.frozen: tuple[str, ...] = frozen_parameters(self._module)
        self.fixed: tuple[str, ...] = () if self.all_frozen else self.frozen
        freeze(self._module, ())  # it is traced through autograd
        self.layout: Layout = layout or find_layout(self._module, image_shape)
        lay_out(self._module, self.layout)
        self.image_shape = image_shape
        self.traces: tuple[LayerTrace, ...] = trace_layers(self._module, image_shape)
        held = [name.removesuffix(".weight") for name in self.fixed if name.endswith(".weight")]
        held = [layer for layer in held if is_layer(self._module.get_submodule(layer))]
        others = {name: next(each for each in tie if each != name) for tie in self._ties for name in tie}
        self._tied = {name.rpartition(".")[0]: other for name, other in others.items()}
        self.fixed_layers: frozenset[str] = frozenset(name.rpartition(".")[0] for name in self.fixed)
        anatomy = dissect(self._module, image_shape, self.traces, selection, held, self._tied)
        if amounts is not None:
            amounts.check(anatomy.steps)
        self.steps: tuple[PruningStep, ...] = anatomy.steps if amounts is None else amounts.losing(anatomy.steps)
        self.units: tuple[PrunableUnit, ...] = tuple(unit for step in self.steps for unit in step.units)
        attentions = {unit.layer: unit.filters for step in anatomy.steps for unit in step.units if unit.heads}
        if again := {path: each for path, each in closed.items() if path not in attentions}:
            self._close(again, {*self.frozen, *frozen_parameters(module)})
        losing = {unit.layer for unit in self.units}
        self.whole_heads: dict[str, int] = {
            path: count for path, count in attentions.items() if path in closed and path not in losing
        }
        self.traces = _with_lanes(self.traces, [unit for step in anatomy.steps for unit in step.units])
        self.refused: Mapping[str, str] = anatomy.refused
        self.outside: tuple[str, ...] = anatomy.outside
        self._selection = selection
        self.freezable: tuple[str, ...] = freezable_layers(self.steps, self.traces, held)
        self.unused: tuple[str, ...] = unused_parameters(self._module, image_shape)
        self.norms: dict[str, str | None] = {trace.name: trace.norm for trace in self.traces}
        self._folded = foldable_norms(self._module, self.norms, image_shape)

    def _close(self, attentions: Mapping[str, nn.Module], frozen: Collection[str]) -> None:
        """Put modules of the user's back, none of whose heads may go.

        Args:
            frozen: parameters with requires_grad=False, by any of their names.
        """
        for path, attention in attentions.items():
            self._module.set_submodule(path, attention.eval())
        self.traces = trace_layers(self._module, self.image_shape)
        self._ties = ties_of(self._module)
        self.frozen = tuple(name for name, _ in self._module.named_parameters() if name in frozen)
        self.fixed = () if self.all_frozen else self.frozen
        self.fixed_layers = frozenset(name.rpartition(".")[0] for name in self.fixed)

    @classmethod
    def verified(
        cls,
        module: nn.Module,
        image_shape: tuple[int, int, int],
        selection: Selection = Selection(),
        layout: Layout | None = None,
    ) -> tuple[DenseNetwork, Selection]:
        """The network, and the selection without the layers whose removal, tried on copies, goes wrong.

        Raises:
            UserError: nothing in it may be pruned.
        """
        network = cls(module, image_shape, selection, layout=layout)
        dense = network.build(torch.device("cpu"))
        faulty = faulty_layers(dense, image_shape, network.steps)
        sound = [unit for unit in network.units if unit.layer not in faulty]
        faulty |= untrainable_layers(dense, image_shape, sound)
        if not faulty:
            return network, selection
        own = dataclasses.replace(selection, faulty=tuple(faulty.items()))
        return cls(module, image_shape, own, layout=network.layout), own

    def wider(self) -> DenseNetwork | None:
        """The same network with all layers that could be pruned, those that `--prune.exclude` names left out; None
        where it has them already.
        """
        excluded = self._selection.exclude
        more = [each for each in self.outside if not any(fnmatch.fnmatchcase(each, pattern) for pattern in excluded)]
        if not more:
            return None
        include = (*(unit.layer for unit in self.units), *more)
        selection = dataclasses.replace(self._selection, include=include, exclude=())
        network, _ = DenseNetwork.verified(self.build(torch.device("cpu")), self.image_shape, selection)
        return network if set(network.units) - set(self.units) else None

    def freer(self) -> DenseNetwork | None:
        """The same network with coupled channels and heads of attentions to go too; None where that adds nothing."""
        selection = dataclasses.replace(self._selection, coupled=True, heads=True)
        if selection == self._selection:
            return None
        try:
            network, _ = DenseNetwork.verified(self.build(torch.device("cpu")), self.image_shape, selection)
        except UserError:
            return None
        return network if {unit.layer for unit in network.units} - {unit.layer for unit in self.units} else None

    def on_rung(self, amounts: Amounts) -> DenseNetwork:
        """The same network for a rung of the ladder whose last rung it was made for: its units are those that lose
        filters anywhere on the ladder, its steps what goes on this rung.
        """
        rung = copy.copy(self)
        rung.amounts, rung.steps = amounts, amounts.losing(self.steps)
        rung.__dict__.pop("resume_points", None)  # by steps
        return rung

    @property
    def all_frozen(self) -> bool:
        """Whether every parameter was given as frozen."""
        return len(self.frozen) == sum(1 for _ in self._module.parameters())

    def build(self, device: torch.device) -> nn.Module:
        """A fresh dense copy in eval mode; what is fixed requires no gradient, and all else does."""
        module = freeze(copied(self._module), self.fixed).to(device)
        self.tie(module)
        lay_out(module)
        return module

    def tie(self, module: nn.Module) -> None:
        """Make names that shared one tensor in the given module share one in a copy of it, in place."""
        join(module, self._ties)

    def build_pruned(self, left: Left, device: torch.device) -> nn.Module:
        """A fresh copy with these filters of the units' layers, whose weights are then to be loaded; gradients as in
        `build`.
        """
        module = freeze(copied(self._module), self.fixed)
        shrink_to(module, self.image_shape, left)
        module.to(device)
        self.tie(module)
        lay_out(module)
        return module

    def for_inference(self, model: nn.Module) -> nn.Module:
        """A copy of the network, in any of its widths, that computes the same faster and cannot be trained."""
        copied = folded(model, self._folded)
        lay_out(copied)
        return copied

    def below(self, frozen: Sequence[str]) -> tuple[str, ...]:
        """Parameters, by name, that the input of the lowest freezable layer not in `frozen` depends on; where all are
        frozen, that of the last layer.
        """
        lowest = next((layer for layer in self.freezable if layer not in frozen), self.traces[-1].name)
        return upstream_parameters(self._module, lowest, self.image_shape)

    @cached_property
    def footprint(self) -> Footprint:
        """Multiply-adds and parameters of all its pruned forms."""
        return Footprint(self.build(torch.device("cpu")), self.image_shape, self.traces, self.units)

    @cached_property
    def resume_points(self) -> dict[int, ResumePoint]:
        """By step number, the last point before the step at which its passes may resume."""
        order = self._order
        first = {
            step.number: min((layer for unit in step.units for layer in unit.owners), key=order.index)
            for step in self.steps
        }
        found = find_resume_points(self._module, self.image_shape, sorted(first.values(), key=order.index))
        return {number: found[layer] for number, layer in first.items() if layer in found}

    @cached_property
    def inner_resume_points(self) -> dict[str, ResumePoint]:
        """By layer, the last point before it at which passes may resume; empty where no step reaches beyond a block."""
        spread = [unit for unit in self.units if unit.is_spread]
        return find_resume_points(self._module, self.image_shape, self._order) if spread else {}

    @property
    def _order(self) -> list[str]:
        return list(dict.fromkeys(trace.name for trace in self.traces))

    @cached_property
    def followed(self) -> dict[str, Followed]:
        """What becomes of the outputs, behind their norms, of layers that read filters which may go."""
        owners = [layer for unit in self.units if unit.is_spread for layer in unit.owners]
        layers = dict.fromkeys([*(reader for unit in self.units for reader in unit.consumers), *owners])
        ends = {layer: self.norms.get(layer) or layer for layer in layers}
        return follow(self._module, self.image_shape, ends)

    @property
    def step_ends(self) -> list[str]:
        """The layers that the steps lead to: behind them, or behind the sums of which they are terms, a network may
        give what the dense one does.
        """
        found = {layer for layer, followed in self.followed.items() if followed.is_term}
        for step in self.steps:
            is_spread = any(unit.is_spread for unit in step.units)  # what reads it may be inside any block
            owners = {owner for unit in (self.units if is_spread else step.units) for owner in unit.owners}
            found |= {reader for unit in step.units for reader in unit.consumers} - owners
        return [layer for layer in self._order if layer in found]

    @property
    def answers(self) -> str | None:
        """The layer that runs last, if it is a linear one with weights of its own, and does so once."""
        order = [trace.name for trace in self.traces]
        is_linear = isinstance(self._module.get_submodule(order[-1]), nn.Linear) and order[-1] not in self._tied
        return order[-1] if is_linear and order.count(order[-1]) == 1 else None

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 over names and bytes of all weights and buffers."""
        digest = hashlib.sha256()
        for name, tensor in self._module.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def unpruned_share(self, model: nn.Module, counting: Counting) -> float:
        """Alpha of eq. 1: how much of the dense network's parameters `model` still has."""
        return self._count(model, counting) / self._count(self._module, counting)

    def layer_shares(self, model: nn.Module, counting: Literal["weights", "multiply-adds"]) -> dict[str, float]:
        """What each unit's layer has of the weights, or of the multiply-adds, of convolutions and prunable layers."""
        pruned = {layer for unit in self.units for layer in (unit.owners if unit.heads else (unit.layer,))}
        sizes = {
            trace.name: multiply_adds(model, trace)
            if counting == "multiply-adds"
            else model.get_parameter(f"{trace.name}.weight").numel()
            for trace in self.traces
            if trace.name in pruned or isinstance(model.get_submodule(trace.name), nn.Conv2d)
        }
        total = sum(sizes.values())
        return {
            unit.layer: sum(sizes[layer] for layer in (unit.owners if unit.heads else (unit.layer,))) / total
            for unit in self.units
        }

    def _count(self, model: nn.Module, counting: Counting) -> int:
        if counting == "multiply-adds":
            return sum(multiply_adds(model, trace) for trace in self.traces)
        if counting == "non-zero-parameters":
            return sum(int(parameter.count_nonzero()) for parameter in model.parameters())
        if counting == "parameters":
            return sum(parameter.numel() for parameter in model.parameters())
        names = [trace.name for trace in self.traces[1:]]
        convs = [layer for name in names if isinstance(layer := model.get_submodule(name), nn.Conv2d)]
        return sum(int(conv.weight.count_nonzero()) for conv in convs if max(conv.kernel_size) > 1)


def _with_lanes(traces: Sequence[LayerTrace], units: Sequence[PrunableUnit]) -> tuple[LayerTrace, ...]:
    """Traces that say which positions of layers are filters that may go."""
    found: dict[str, list[tuple[str, int, int]]] = {}
    for unit in units:
        for layer, roots in unit.lanes:
            each = sum(root >= 0 for root in roots) // unit.filters
            found.setdefault(layer, []).append((unit.layer, unit.filters, each))
    return tuple(dataclasses.replace(trace, lanes=tuple(found.get(trace.name, ()))) for trace in traces)
