"""Least squares from sums that do not grow with the number of rows, in float64, and the rows: what a layer reads, and
what it gives, at sampled positions.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ice_ray.randomness import generator
from ice_ray.repair.context import Reduction

_SUMS = ("_rows", "_x", "_y", "_xx", "_xy", "_yy")
_TINY = torch.finfo(torch.float64).tiny
_NARROW, _STRIPES, _ALIGNED = 128, 4, 16
_FEW_POSITIONS, _MANY_POSITIONS, _FEW_INPUTS = 16, 64, 1024


class NormalEquations:
    """Sums over rows of inputs x and targets y, for y ~ x w (+ a constant).

    Args:
        groups, inputs, outputs: the sizes; a grouped layer is as many problems side by side.
        constant: whether the fit may add a constant to every output: means are taken out on both sides then.
    """

    def __init__(self, groups: int, inputs: int, outputs: int, constant: bool, device: torch.device) -> None:
        self._constant = constant
        self._rows = torch.zeros((), dtype=torch.float64, device=device)
        self._x, self._y = self._rows.new_zeros(groups, inputs), self._rows.new_zeros(groups, outputs)
        self._xx = self._rows.new_zeros(groups, inputs, inputs)
        self._xy = self._rows.new_zeros(groups, inputs, outputs)
        self._yy = self._rows.new_zeros(groups, outputs)

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        """Take in (groups, rows, inputs) and (groups, rows, outputs)."""
        x, y = inputs.double(), targets.double()
        self._rows += x.shape[1]
        self._x += x.sum(dim=1)
        self._y += y.sum(dim=1)
        _add_products(self._xx, x)
        self._xy.baddbmm_(x.mT, y)
        self._yy += y.square().sum(dim=1)

    def restricted(self, inputs: Tensor, outputs: Tensor) -> NormalEquations:
        """The same rows with some of the inputs and outputs alone.

        Args:
            inputs, outputs: (groups, n) int64, which are left, within each group.
        """
        part = copy.copy(self)
        part._x, part._y, part._yy = (
            own.gather(1, kept) for own, kept in ((self._x, inputs), (self._y, outputs), (self._yy, outputs))
        )
        rows = self._xx.gather(1, inputs[:, :, None].expand(-1, -1, self._xx.shape[2]))
        part._xx = rows.gather(2, inputs[:, None].expand(-1, inputs.shape[1], -1))
        rows = self._xy.gather(1, inputs[:, :, None].expand(-1, -1, self._xy.shape[2]))
        part._xy = rows.gather(2, outputs[:, None].expand(-1, inputs.shape[1], -1))
        return part

    def reduce(self, reduction: Reduction) -> None:
        """Sum up over processes."""
        for name in _SUMS:
            setattr(self, name, reduction.sum(getattr(self, name)))

    @property
    def outputs(self) -> int:
        """Of a group."""
        return self._y.shape[1]

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """(groups, inputs) and (groups, outputs)."""
        rows = self._rows.clamp_min(1)
        return self._x / rows, self._y / rows

    def moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """The mean products x'x (groups, inputs, inputs), x'y (groups, inputs, outputs) and y^2 (groups, outputs),
        about the means where a constant is fitted.
        """
        rows = self._rows.clamp_min(1)
        xx, xy, yy = self._xx / rows, self._xy / rows, self._yy / rows
        if not self._constant:
            return xx, xy, yy
        x, y = self.means
        return xx - x[:, :, None] * x[:, None, :], xy - x[:, :, None] * y[:, None, :], yy - y.square()

    def error(self, weights: Tensor) -> float:
        """Mean square of what (groups, inputs, outputs) weights leave unexplained, over that of the targets; about the
        means where a constant is fitted.
        """
        xx, xy, yy = self.moments()
        left = yy - 2 * (weights * xy).sum(dim=1) + (weights * (xx @ weights)).sum(dim=1)
        return float(left.sum().clamp_min(0) / yy.sum().clamp_min(_TINY))

    def solve(self, prior: Tensor, ridge: float) -> Tensor:
        """The weights (groups, inputs, outputs) that fit best, drawn towards a prior.

        The prior is a candidate itself, so what is found never leaves more unexplained than it does.

        Args:
            ridge: strength, over the mean square of an input.
        """
        xx, xy, _ = self.moments()
        change: Tensor = torch.linalg.solve(self.damped(ridge), xy - xx @ prior)
        return prior + change

    def damped(self, ridge: float) -> Tensor:
        """x'x with the ridge on its diagonal, which makes it solvable: inputs that are always 0, or always the same,
        keep their prior.
        """
        xx, _, _ = self.moments()
        spread = xx.diagonal(dim1=1, dim2=2).mean(dim=1)
        size = self._xx.diagonal(dim1=1, dim2=2).mean(dim=1) / self._rows.clamp_min(1)
        scale = torch.maximum(spread, 1e-8 * size)
        strength = ridge * torch.where(scale > 0, scale, 1.0)
        return xx + torch.diag_embed(strength[:, None].expand(-1, xx.shape[1]))


def _add_products(sums: Tensor, x: Tensor) -> None:
    """Add x'x (groups, inputs, inputs), which is symmetric: in stripes from the diagonal on, mirrored."""
    width = x.shape[2]
    stripe = max(1, width) if width < _NARROW else -(-width // (_STRIPES * _ALIGNED)) * _ALIGNED
    for start in range(0, width, stripe):
        end = min(start + stripe, width)
        sums[:, start:end, start:].baddbmm_(x[:, :, start:end].mT, x[:, :, start:])
        sums[:, end:, start:end] = sums[:, start:end, end:].mT


def positions_per_image(inputs: int) -> int:
    """Output positions of an image at which rows are taken at most, for a layer with so many inputs a filter: enough
    for several rows an input with some hundred images.
    """
    return _FEW_POSITIONS if inputs <= _FEW_INPUTS else _MANY_POSITIONS


@dataclass(frozen=True)
class Positions:
    """Where in every image's output rows are taken.

    Attributes:
        of_image: (images, positions) int64, flat indices of output positions.
    """

    of_image: Tensor

    @classmethod
    def drawn(
        cls, images: int, positions: int, most: int, key: tuple[int | str, ...], device: torch.device
    ) -> Positions:
        """All positions, or `most` different ones an image, by the key's random numbers."""
        if positions <= most:
            return cls(torch.arange(positions, device=device).expand(images, positions))
        drawn = torch.rand(images, positions, generator=generator(*key)).topk(most).indices
        return cls(drawn.to(device))


def input_rows(layer: nn.Module, given: Tensor, output_size: Sequence[int], positions: Positions) -> Tensor:
    """(groups, rows, weights of a filter): what each sampled output of a layer is a weighted sum of."""
    if isinstance(layer, nn.Linear):
        flat = given.reshape(len(given), -1, given.shape[-1])
        return flat.gather(1, positions.of_image[:, :, None].expand(-1, -1, flat.shape[-1])).flatten(0, 1)[None]
    assert isinstance(layer, nn.Conv2d)
    padded = _padded(layer, given)
    device = given.device
    rows, columns = positions.of_image // output_size[-1], positions.of_image % output_size[-1]
    within = [
        torch.arange(size, device=device) * dilation
        for size, dilation in zip(layer.kernel_size, layer.dilation, strict=True)
    ]
    down = rows[:, :, None] * layer.stride[0] + within[0]  # (images, positions, kernel height)
    across = columns[:, :, None] * layer.stride[1] + within[1]
    image = torch.arange(len(given), device=device)[:, None, None, None]
    patches = padded.movedim(1, -1)[image, down[:, :, :, None], across[:, :, None, :]]  # (n, positions, kh, kw, C)
    patches = patches.movedim(-1, 2).flatten(0, 1)  # (rows, C, kh, kw): the order of a filter's weights
    by_group: Tensor = patches.unflatten(1, (layer.groups, -1)).flatten(2)
    return by_group.movedim(1, 0)


def output_rows(layer: nn.Module, output: Tensor, positions: Positions) -> Tensor:
    """(rows, filters) of a layer's output at the sampled positions."""
    channels_last = output if isinstance(layer, nn.Linear) else output.movedim(1, -1)
    flat = channels_last.reshape(len(output), -1, channels_last.shape[-1])
    return flat.gather(1, positions.of_image[:, :, None].expand(-1, -1, flat.shape[-1])).flatten(0, 1)


def by_image(activations: Tensor, images: int) -> Tensor:
    """(images, ...) of what a layer reads or gives: windows of an image, which run as if they were images of their own,
    side by side.
    """
    windows, rest = divmod(len(activations), images)
    return activations if windows < 2 or rest else activations.unflatten(0, (images, windows))


def at_lanes(activations: Tensor, lanes: Tensor) -> Tensor:
    """(images, positions, features) at some of the positions of (images, ..., features)."""
    return activations.flatten(1, -2).index_select(1, lanes)


def positions_of(layer: nn.Module, output: Tensor) -> int:
    """Output positions of one image."""
    return output[0].numel() // output.shape[-1 if isinstance(layer, nn.Linear) else 1]


def _padded(layer: nn.Conv2d, given: Tensor) -> Tensor:
    """As the layer pads."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    sides = list(layer._reversed_padding_repeated_twice)
    return F.pad(given, sides, mode=mode) if any(sides) else given
