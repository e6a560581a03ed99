"""What is to be left of a network: the target of `--target`, and what has been found to lead to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

from ice_ray.errors import UserError
from ice_ray.pruning.amounts import Allocation, Amounts

Quantity = Literal["macs", "params", "latency", "onnx-latency"]
MEASURED: tuple[Quantity, ...] = ("latency", "onnx-latency")
"""The others are counted."""
BATCH = 64
"""Images of a measured pass."""


@dataclass(frozen=True)
class Target:
    """What is to be left: a share of the dense network's multiply-adds, parameters or latency, inside (0, 1).

    `latency` is PyTorch's own, `onnx-latency` that of the exported network in ONNX Runtime.
    """

    quantity: Quantity
    share: float

    def __str__(self) -> str:
        return f"{self.quantity}={self.share:g}"


Rung = tuple[Target, ...]
"""Targets that are to be reached together. Several rungs are a ladder: each leaves less than the one before."""


@dataclass(frozen=True)
class Found:
    """What leads to a target: one ratio for all layers, or a width for each.

    Attributes:
        ratio: share of the filters that goes: of every layer, or of all layers together.
        shares: what is left of the dense network's quantities, those of the target first.
        widths: (layer, filters kept) of an allocation.
        losses: (layer, what its width is expected to cost) of an allocation, and `uniform_loss` what one ratio for all
            layers would cost: mean Kullback-Leibler divergence from the dense network's answers, in nats.
        seconds, flops: what the allocation took.
        device: on which `latency` was measured; `onnx-latency` is always one thread's.
        above: of a ladder's rung, what leads to the rung before, from whose network it goes on; None for the first.
    """

    ratio: float
    shares: tuple[tuple[str, float], ...]
    widths: tuple[tuple[str, int], ...] = ()
    losses: tuple[tuple[str, float], ...] = ()
    uniform_loss: float | None = None
    seconds: float = 0.0
    flops: float = 0.0
    device: str = "cpu"
    above: Found | None = None

    @property
    def rungs(self) -> tuple[Found, ...]:
        """Of the ladder that ends here, from the first."""
        return (self,) if self.above is None else (*self.above.rungs, self)

    @property
    def allocation(self) -> Allocation | None:
        """The widths, and what they took; None where one ratio holds."""
        return Allocation(self.widths, self.seconds, self.flops) if self.widths else None

    @property
    def share(self) -> float:
        """What is left of the target's first quantity."""
        return self.shares[0][1]

    def on(self, amounts: Amounts) -> Amounts:
        """The amounts, with what has been found, for a run that goes there from the dense network."""
        return replace(amounts, ratio=self.ratio, allocation=self.allocation)

    def on_rung(self, amounts: Amounts) -> Amounts:
        """The same for one that goes on from the rung above. The allocation was the first rung's expense."""
        if self.above is None:
            return self.on(amounts)
        free = replace(self, seconds=0.0, flops=0.0)
        return replace(free.on(amounts), above=self.above.on(amounts))

    @property
    def loss(self) -> float:
        """What the allocation is expected to cost, in nats."""
        return sum(loss for _, loss in self.losses)

    def _named(self, quantity: str) -> str:
        whose = _ONNX if quantity == "onnx-latency" else f"PyTorch, {self.device}, batch {BATCH}"
        return _COUNTED.get(quantity, f"latency ({whose})")

    @property
    def words(self) -> str:
        """For people."""
        left = " and ".join(f"{share:.3f} of the {self._named(quantity)}" for quantity, share in self.shares)
        if not self.losses:
            return f"ratio {self.ratio:g} leaves {left}"
        told = f"a width for each of {len(self.widths)} layers, found in {self.seconds:.1f} s, leaves {left}"
        uniform = "" if self.uniform_loss is None else f", at one ratio for all layers {self.uniform_loss:.3g}"
        return f"{told}; expected loss {self.loss:.3g} nats{uniform}"


_COUNTED = {"macs": "multiply-adds", "params": "parameters"}
_ONNX = f"ONNX Runtime, one thread, batch {BATCH}"


def target_words(text: str) -> str:
    """A target as it was given, with whose latency is meant.

    >>> target_words("macs=0.6 onnx-latency=0.5")
    'macs=0.6 onnx-latency=0.5 (ONNX Runtime, one thread, batch 64)'
    """
    whose = {"latency": f"PyTorch, batch {BATCH}", "onnx-latency": _ONNX}
    found = ((word, whose.get(word.partition("=")[0])) for word in text.split())
    return " ".join(word if said is None else f"{word} ({said})" for word, said in found)


def parse_target(text: str) -> tuple[Rung, ...]:
    """A target as the command line has it, of one quantity or of several, all of which are to be reached; with several
    shares of each it is a ladder. The rungs, of which there is at least one.

    Raises:
        UserError: it is none, or a ladder that does not go down.

    >>> parse_target("macs=0.5 params=0.6")
    ((Target(quantity='macs', share=0.5), Target(quantity='params', share=0.6)),)
    >>> [str(target) for (target,) in parse_target("macs=0.8,0.6,0.4")]
    ['macs=0.8', 'macs=0.6', 'macs=0.4']
    """
    ladders = [_parsed(word) for word in text.split()] or [_parsed(text)]
    if len({targets[0].quantity for targets in ladders}) < len(ladders):
        raise UserError(f"target '{text}' names a quantity twice")
    if len({len(targets) for targets in ladders}) > 1:
        raise UserError(f"target '{text}' must have as many shares of one quantity as of the other")
    for targets in ladders:
        for before, after in pairwise(targets):
            if after.share >= before.share:
                raise UserError(f"target '{text}' must go down: {after} does not leave less than {before}")
    return tuple(zip(*ladders, strict=True))


def parse_rung(text: str, who: str) -> Rung:
    """A target for what takes no ladder.

    Args:
        who: takes none, for people.

    Raises:
        UserError: it is none, or a ladder.
    """
    rungs = parse_target(text)
    if len(rungs) > 1:
        raise UserError(f"target '{text}' is a ladder, and {who} takes one share: give it one rung")
    return rungs[0]


def _parsed(text: str) -> Rung:
    """Of one quantity, from the top."""
    quantity, _, shares = text.partition("=")
    try:
        values = [float(share) for share in shares.split(",")]
    except ValueError:
        values = [0.0]
    if quantity not in get_args(Quantity) or not all(0 < value < 1 for value in values):
        *others, last = (f"{each}=" for each in get_args(Quantity))
        known = f"{', '.join(others)} or {last}"
        raise UserError(
            f"target '{text}' must be {known} with a share inside (0, 1), as macs=0.5, or with several, from the top "
            "down, as macs=0.8,0.6,0.4"
        )
    return tuple(Target(quantity, value) for value in values)  # type: ignore[arg-type]
