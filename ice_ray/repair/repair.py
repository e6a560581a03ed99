"""Repairs after filters have been removed, without labels: closed forms that need a few forward passes, and layers
trained by themselves towards the dense network's outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

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
        targets_held: whether what a reconstruction aims at was computed once; else for every batch.
        set_up_before, set_up_after: layers whose least-squares problem was set up before and after the removal.
        norms_estimated: whether norms were, in whole passes.
    """

    refitted: Errors = field(default_factory=dict)
    reconstructed: Errors = field(default_factory=dict)
    targets_held: bool = True
    set_up_before: tuple[str, ...] = ()
    set_up_after: tuple[str, ...] = ()
    norms_estimated: bool = False


def repair(
    context: RepairContext,
    problems: StepProblems,
    kind: RepairKind,
    removed: Mapping[str, Sequence[int]],
    remove: Callable[[], None],
    epochs: float = 0.0,
) -> Repaired:
    """Remove filters of a context's units from its network, and repair it, in place.

    `bn` estimates batch-norm statistics anew from the first pruned layer on. `least-squares` refits the layers whose
    filters are to go, to what they give in the dense network, and then, in the order in which they run, the layers that
    read what is left, so that the sums in which they end are those of the dense network; norms behind keep the
    statistics that go with it. The first reader reads after the removal what it read before, less what has gone: its
    problem is set up before, where a criterion may have set it up already. After the last step the layer that gives the
    answers is refitted, too. Where a reader cannot be refitted, norms are estimated anew as well. `reconstruction`
    begins with that, and then trains the step's layers and their readers together, if all of these were refitted.

    Args:
        problems: of the network before the removal.
        removed: per layer, the filters that go.
        remove: takes them.
        epochs: of a reconstruction.
    """
    model, structure = context.model, context.structure
    order = structure.order
    consumers = {reader for unit in context.units for reader in unit.consumers}
    readers = [] if kind == "bn" else readers_of(context)
    ready = problems.ready(context) if readers else {}
    whole = problems.of_reader(context, readers[0]) if readers else None
    widths = {unit.layer: context.filters(unit.layer) for unit in context.units}
    for values in ready.values():
        assign(model, values)
    remove()
    first = min(widths, key=order.index)
    context = context.without(removed)
    before, after, errors = [*ready, *(readers[:1] if whole is not None else ())], list[str](), Errors()
    missed = consumers - set(readers)

    def estimate(last: str | None) -> None:
        """Norms from the first pruned layer on, but for those that go with what has been refitted."""
        settled = [norm for norm in map(structure.norms.get, [*ready, *errors]) if norm is not None]
        recalibrate(model, context.images, context.reduction, first, last, settled)

    for reader in readers:
        if reader in structure.fixed or not can_be_refitted(model.get_submodule(reader)):
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
    reconstructed, held = Errors(), True
    if misses:
        estimate(None)
    elif kind == "reconstruction":
        reconstructed, held = reconstruct(context, errors, epochs)
    last = structure.answers if kind != "bn" and structure.answers not in structure.fixed else None
    if last is not None and last not in errors and can_be_refitted(model.get_submodule(last)):
        after.append(last)
        errors[last] = refit(context, last, problem_of(context, last))
    return Repaired(errors, reconstructed, held, tuple(before), tuple(after), misses)
