"""Repairs after filters have been removed, without labels: closed forms that need a few forward passes, and layers
trained by themselves towards the dense network's outputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ice_ray.repair.batch_norms import recalibrate
from ice_ray.repair.config import RepairKind
from ice_ray.repair.context import RepairContext
from ice_ray.repair.least_squares import can_be_refitted, problem_of, readers_of, refit
from ice_ray.repair.reconstruction import reconstruct
from ice_ray.repair.step_problems import StepProblems, assign, remaining_problem

Errors = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Repaired:
    """What repairs have come to, as shares of targets' mean squares that are not reproduced, before and after.

    Attributes:
        refitted: per refitted reader, and the layer that answers, of its targets about their means.
        reconstructed: by the module behind which a step is looked at.
        trained: the layers of each reconstruction.
        targets_held: whether what a reconstruction aims at was computed once; else for every batch.
        together: as `reconstructed`, of all steps after the last.
        together_held: whether what that aims at was computed once.
        set_up_before, set_up_after: layers whose least-squares problem was set up before and after the removal.
        norms_estimated: whether norms were, in whole passes.
    """

    refitted: Errors = field(default_factory=dict)
    reconstructed: Errors = field(default_factory=dict)
    trained: tuple[tuple[str, ...], ...] = ()
    targets_held: bool = True
    set_up_before: tuple[str, ...] = ()
    set_up_after: tuple[str, ...] = ()
    norms_estimated: bool = False
    together: Errors = field(default_factory=dict)
    together_held: bool = True


def repair(
    context: RepairContext,
    problems: StepProblems,
    kind: RepairKind,
    removed: Mapping[str, Sequence[int]],
    remove: Callable[[], None],
    epochs: float = 0.0,
    together: float = 0.0,
) -> Repaired:
    """Remove filters of a context's units from its network, and repair it, in place.

    `bn` estimates batch-norm statistics anew from the first pruned layer on. `least-squares` refits the layers whose
    filters are to go, to what they give in the dense network, and then, in the order in which they run, the layers that
    read what is left, so that the sums in which they end are those of the dense network; norms behind keep the
    statistics that go with it. The first reader reads after the removal what it read before, less what has gone: its
    problem is set up before, where a criterion may have set it up already. Where a reader cannot be refitted, norms are
    estimated anew as well. `reconstruction` begins with that, and then trains the step's layers and their readers
    together, if all of these were refitted. After the last step, it may train all layers between the first and the last
    step's end together, so that each makes up for what those before it have left; and the layer that gives the answers
    is refitted, too.

    Where filters of several layers go together, or a reader reads more than them, the step may reach through the whole
    network. There it is gone through once, block after block: all layers that lose or read filters are refitted, then
    the block is trained (`Section`), then passes begin behind it.

    Args:
        problems: of the network before the removal.
        removed: per layer, the filters that go.
        remove: takes them.
        epochs: of a reconstruction of the step.
        together: of one of all steps, after the last.
    """
    if context.is_spread and kind != "bn":
        remove()
        return _through(context.without(removed), kind, epochs, together)
    model, structure = context.model, context.structure
    order = structure.order
    consumers = {reader for unit in context.units for reader in unit.consumers}
    readers = [] if kind == "bn" else readers_of(context)
    ready = problems.ready(context) if readers else {}
    whole = problems.of_reader(context, readers[0]) if readers else None
    widths = {unit.layer: len(context.kept[unit.layer]) for unit in context.units}
    for values in ready.values():
        assign(model, values)
    remove()
    first = min((owner for unit in context.units for owner in unit.owners), key=order.index)
    context = context.without(removed)
    before, after, errors = [*ready, *(readers[:1] if whole is not None else ())], list[str](), Errors()
    missed = consumers - set(readers)

    def estimate(last: str | None) -> None:
        """Norms from the first pruned layer on, but for those that go with what has been refitted."""
        settled = [norm for norm in map(structure.norms.get, [*ready, *errors]) if norm is not None]
        recalibrate(model, context.images, context.reduction, first, last, settled)

    for reader in readers:
        if not _may_be_refitted(context, reader):
            missed.add(reader)
            continue
        problem = None
        if any(order.index(each) < order.index(reader) for each in missed):
            estimate(reader)  # fitted to what it will read
        elif whole is not None and reader == readers[0]:
            (read,) = (unit.layer for unit in context.units if reader in unit.consumers)
            problem = remaining_problem(context, reader, whole, widths[read], removed.get(read, ()))
        if problem is None:
            problem = problem_of(context, reader)
            after.append(reader)
        errors[reader] = refit(context, reader, problem)
    misses = not consumers or not consumers <= set(errors)
    reconstructed, trained, held = Errors(), list[str](), True
    if misses:
        estimate(None)
    elif kind == "reconstruction" and epochs:
        owners = {name for unit in context.units for name in unit.owners}
        trained = [layer for layer in dict.fromkeys(order) if layer in owners | set(errors)]
        ends = [layer for layer in dict.fromkeys(order) if layer in errors and layer not in owners]
        reconstructed, held = reconstruct(context, trained, ends, epochs)
    context, found, is_held = _all_together(context, together)
    if kind != "bn":
        after += _answering_last(context, errors)
    layers = (tuple(trained),) if reconstructed else ()
    return Repaired(errors, reconstructed, layers, held, tuple(before), tuple(after), misses, found, is_held)


def _all_together(context: RepairContext, epochs: float) -> tuple[RepairContext, Errors, bool]:
    """After the last step: the layers of all steps trained together, towards what the steps lead to. From then on
    passes begin at the images.
    """
    structure = context.structure
    order, ends = list(dict.fromkeys(structure.order)), structure.step_ends
    if not epochs or not ends:
        return context, {}, True
    first = min(order.index(owner) for unit in structure.units for owner in unit.owners)
    layers = order[first : max(map(order.index, ends)) + 1]
    own = replace(context, images=context.images.from_start(), key=(*context.key, "together"))
    return own, *reconstruct(own, layers, ends, epochs)


def _answering_last(context: RepairContext, errors: Errors) -> list[str]:
    """After the last step the layer that gives the answers is refitted, if it has not been; which that was."""
    last = context.structure.answers
    if last is None or last in errors or not _may_be_refitted(context, last):
        return []
    errors[last] = refit(context, last, problem_of(context, last))
    return [last]


def _may_be_refitted(context: RepairContext, layer: str) -> bool:
    return layer not in context.structure.fixed and can_be_refitted(context.model.get_submodule(layer))


@dataclass(frozen=True)
class Section:
    """A part of a network, in the order in which it runs, that is repaired before what comes behind it.

    Attributes:
        layers: all of it.
        touched: those of them that lose filters or read filters that go.
        ends: behind which it is to give what it gives in the dense network; none where refits alone do as well.
    """

    layers: tuple[str, ...]
    touched: tuple[str, ...]
    ends: tuple[str, ...]


def sections(context: RepairContext) -> list[Section]:
    """Of what lies between the first and the last layer that a step touches. A section ends behind a residual branch,
    of which its layers make the sum what it is. Where there is none, it ends before another layer that reads filters.
    """
    structure, runs = context.structure, Counter(context.structure.order)
    readers = {reader for unit in context.units for reader in unit.consumers}
    owners = {owner for unit in context.units for owner in unit.owners}
    order = list(dict.fromkeys(structure.order))
    places = [place for place, layer in enumerate(order) if layer in readers | owners]
    within, branches = order[places[0] : places[-1] + 1], set(structure.residual_branches)
    last_branch = max((place for place, layer in enumerate(within) if layer in branches), default=-1)
    parts: list[list[str]] = [[]]
    for place, layer in enumerate(within):
        part = parts[-1]
        is_behind_sum = bool(part) and part[-1] in branches and layer not in branches
        if is_behind_sum or (place > last_branch and layer in readers and readers & set(part)):
            parts.append([])
        parts[-1].append(layer)
    found = []
    for part in parts:
        touched = tuple(each for each in part if each in readers | owners and runs[each] == 1)
        ends = [each for each in part if each in branches]
        if not ends and owners & set(part):
            ends = [each for each in touched if each in readers]
        if touched:
            found.append(Section(tuple(part), touched, tuple(ends) if len(part) > 1 else ()))
    return found


def _through(context: RepairContext, kind: RepairKind, epochs: float, together: float) -> Repaired:
    """The repair of a step that reaches beyond a block, after the removal."""
    model, structure = context.model, context.structure
    readers = {reader for unit in context.units for reader in unit.consumers}
    errors, reconstructed, trained, held = Errors(), Errors(), list[tuple[str, ...]](), True
    with context.images.moving():
        for section in sections(context):
            context.images.move_to(section.layers[0])
            for layer in section.touched:
                if _may_be_refitted(context, layer):
                    errors[layer] = refit(context, layer, problem_of(context, layer))
            if kind == "reconstruction" and epochs and section.ends:
                own = replace(context, key=(*context.key, section.layers[0]))
                own_errors, holds = reconstruct(own, section.layers, section.ends, epochs)
                reconstructed |= own_errors
                trained += [section.layers] if own_errors else []
                held = held and holds
    context, found, is_held = _all_together(context, together)
    _answering_last(context, errors)
    misses = not readers <= set(errors)
    if misses:
        settled = [norm for norm in map(structure.norms.get, errors) if norm is not None]
        first = min((owner for unit in context.units for owner in unit.owners), key=structure.order.index)
        recalibrate(model, context.images, context.reduction, first, None, settled)
    return Repaired(errors, reconstructed, tuple(trained), held, (), tuple(errors), misses, found, is_held)
