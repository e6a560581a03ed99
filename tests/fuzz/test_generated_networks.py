"""Hundreds of networks from a grammar of blocks: each is refused in one line, or pruned right.

Right is: where the filters that go were dead, the logits stay as they were; what is saved and loaded again gives the
same logits; the parameters that are left are those that were told. Dead is what the network's own blocks say, no graph.

They are made from a seed: ICE_RAY_FUZZ_SEED=N tries others, ICE_RAY_FUZZ_TIMES=N tries N times as many.
"""

from __future__ import annotations

import copy
import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from generated_networks import CLASSES, SHAPE, Generated, generated, killed, without_mixing
from torch import Tensor, nn

from ice_ray import IceHyperparameters, ImageSet, PruningData, prune
from ice_ray.artifact import load_pruned, save_pruned
from ice_ray.engine.network import DenseNetwork
from ice_ray.errors import UserError
from ice_ray.models.registry import ModelSpec
from ice_ray.models.units import all_kept, kept_without
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.removal import remove_filters, widths_of
from ice_ray.pruning.selection import Selection
from ice_ray.workflow.plan import open_network

SEED = int(os.environ.get("ICE_RAY_FUZZ_SEED", "0"))
TIMES = int(os.environ.get("ICE_RAY_FUZZ_TIMES", "1"))
NETWORKS, BATCHES = 500, 10
LONGEST_LINE, CLOSE = 1500, 1e-3
AMOUNTS = Amounts(0.5)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_each_is_refused_in_one_line_or_pruned_right(batch, tmp_path):
    try_all(range(batch, NETWORKS * TIMES, BATCHES), tmp_path, is_coupled=False)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_so_it_is_where_coupled_channels_go_too(batch, tmp_path):
    try_all(range(batch, NETWORKS * TIMES, BATCHES), tmp_path, is_coupled=True)


def try_all(numbers: Sequence[int], folder: Path, is_coupled: bool) -> None:
    """Raises AssertionError: some of the networks of these numbers go wrong, or hardly any can be pruned."""
    faults, outcomes = [], Counter[str]()
    for number in numbers:
        network = generated(number, SEED)
        try:
            outcome = fault_of(network, number, folder / str(number), is_coupled)
        except Exception as error:
            outcome = f"{type(error).__name__}: {str(error)[:200]}"
        outcomes[outcome] += 1
        if outcome not in ("right", "refused"):
            faults.append(f"{number}: {outcome} [{network.described}]")
    assert not faults, f"{len(faults)} of {outcomes.total()}:\n" + "\n".join(faults)
    assert outcomes["right"] > outcomes.total() / 2


def fault_of(network: Generated, number: int, folder: Path, is_coupled: bool = False) -> str:
    """How it went: right, refused, or what is wrong."""
    everything = Selection(include=("*",) if number % 2 else (), coupled=is_coupled)
    try:
        opened, _ = open_network(network, "mine", SHAPE, everything)
        AMOUNTS.check(opened.steps)
    except UserError as refusal:
        return refused(str(refusal), network.is_plain)
    removed = chosen(opened, number)
    images = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(number))
    return (
        dead_filters(opened, removed, images) or saved_and_loaded(network, opened, removed, images, folder) or "right"
    )


def refused(line: str, is_plain: bool) -> str:
    if not line.isprintable() or not line.strip() or len(line) > LONGEST_LINE or "Traceback" in line:
        return f"refused in no clear line: {line!r}"
    return f"refused without need: {line}" if is_plain else "refused"


def chosen(network: DenseNetwork, number: int) -> dict[str, tuple[int, ...]]:
    """Filters to remove, at random; of every run of a grouped layer the same places."""
    chance, removed = random.Random(f"{SEED} filters {number}"), {}
    for unit in network.units:
        run = unit.filters // unit.groups
        free = [place for place in range(run) if place not in unit.fixed]
        places = chance.sample(free, AMOUNTS.removed(unit) // unit.groups)
        removed[unit.layer] = tuple(sorted(start + each for start in range(0, unit.filters, run) for each in places))
    return removed


def dead_filters(opened: DenseNetwork, removed: Mapping[str, Sequence[int]], images: Tensor) -> str:
    """What is wrong where filters go that give nothing."""
    dense = opened.build(torch.device("cpu"))
    assert isinstance(dense, Generated)
    killed(dense, owned(opened, removed))
    pruned = copy.deepcopy(dense)
    remove_filters(pruned, SHAPE, removed)
    before, after = logits(without_mixing(dense), images), logits(without_mixing(pruned), images)
    if before.shape != after.shape:
        return f"logits of {tuple(after.shape)} where they were {tuple(before.shape)}"
    apart = float((before - after).abs().max() / before.abs().max())
    return "" if apart <= CLOSE else f"dead filters of {list(removed)} changed logits by {apart:.2g} of the greatest"


def owned(opened: DenseNetwork, removed: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """By layer, all filters that go: those of the units' own layers, and those that are coupled to them."""
    kept = kept_without(opened.units, all_kept(opened.units), removed)
    gates = {gate for unit in opened.units for gate in unit.gates}
    every = all_kept(opened.units)
    return {layer: sorted({*every[layer]} - {*own}) for layer, own in kept.items() if layer not in gates}


def saved_and_loaded(
    network: Generated, opened: DenseNetwork, removed: Mapping[str, Sequence[int]], images: Tensor, folder: Path
) -> str:
    """What is wrong with the network that comes back."""
    pruned = opened.build(torch.device("cpu"))
    remove_filters(pruned, SHAPE, removed)
    widths = widths_of(pruned, opened.steps)
    wrong = [layer for layer, filters in removed.items() if widths[layer] != opened_width(opened, layer) - len(filters)]
    if wrong:
        return f"other widths than asked for: {wrong}"
    spec, tensors = ModelSpec("mine:build", CLASSES), pruned.state_dict()
    every = kept_without(opened.units, all_kept(opened.units), removed)
    left = {unit.layer: every[unit.layer] for unit in opened.units}
    save_pruned(folder, spec, SHAPE, left, tensors, {}, opened.frozen, opened.layout)
    loaded = load_pruned(folder, builder=lambda: copy.deepcopy(network))
    if not torch.equal(logits(loaded, images), logits(pruned, images)):
        return "other logits once saved and loaded"
    if parameters(loaded) != parameters(opened.build_pruned(left, torch.device("cpu"))):
        return "other parameters than told"
    held = {name for name, each in network.named_parameters() if not each.requires_grad}
    freed = held & {name for name, each in loaded.named_parameters() if each.requires_grad}
    return f"no longer frozen: {sorted(freed)}" if freed else ""


def opened_width(network: DenseNetwork, layer: str) -> int:
    return next(unit.filters for unit in network.units if unit.layer == layer)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def logits(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        answer = network.eval()(images)
    answer = answer[0] if isinstance(answer, tuple) else answer
    answer = answer["logits"] if isinstance(answer, dict) else getattr(answer, "logits", answer)
    assert isinstance(answer, Tensor)
    return answer


def kept(after: Tensor, before: Tensor) -> bool:
    """Whether a frozen tensor is what it was; a norm's may have lost the channels that went."""
    return torch.equal(after, before) or (before.ndim == 1 and bool(torch.isin(after, before).all()))


def test_some_go_all_the_way():
    """The operator on every tenth of them, with training: refused in one line, or smaller, with what is frozen kept."""
    drawn = np.random.default_rng(0)
    pixels = drawn.integers(0, 256, (48, *SHAPE[1:], 3), dtype=np.uint8)
    images = ImageSet.from_numpy(pixels, np.arange(48) % CLASSES)
    faults, done = [], 0
    for number in range(0, NETWORKS // 10 * TIMES):
        network = generated(10 * number + number % 10, SEED)
        held = {name: each.clone() for name, each in network.named_parameters() if not each.requires_grad}
        try:
            result = prune(
                network,
                PruningData(images, images),
                ratio=0.5,
                hyperparameters=IceHyperparameters(0, 0.3, 1e-3, 6e-4, 0.1, 50),
            )
        except UserError as refusal:
            if (said := refused(str(refusal), False)) != "refused":
                faults.append(f"{number}: {said} [{network.described}]")
            continue
        except Exception as error:
            faults.append(f"{number}: {type(error).__name__}: {str(error)[:200]} [{network.described}]")
            continue
        done += 1
        after = dict(result.model.named_parameters())
        moved = [name for name, each in held.items() if after[name].requires_grad or not kept(after[name], each)]
        if moved or parameters(result.model) >= parameters(network):
            faults.append(f"{number}: frozen and changed: {moved}; {parameters(result.model)} [{network.described}]")
    assert not faults, "\n".join(faults)
    assert done > NETWORKS // 10 * TIMES / 2
