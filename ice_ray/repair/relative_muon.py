"""Muon: momentum whose matrices are made orthogonal, so that a step goes as far in every direction as in the steepest
(Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

torch.optim.Muon does this in bf16, and on a CPU without instructions for it takes many times as long (2.15.0).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

_MOMENTUM = 0.9
_BETAS, _EPS = (0.9, 0.999), 1e-8
_COEFFICIENTS = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


class RelativeMuon:
    """Of matrices Muon, of all else Adam; a tensor's step is, root mean square, a share of what its values were at the
    start. One of zeros stays.

    Args:
        parameters: whose gradients it reads.
        matrices: those of them that are matrices, (outputs, inputs, ...); others are not looked at.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], matrices: Collection[Tensor]) -> None:
        known = {id(each) for each in matrices}
        self._own: list[_Matrix | _Other] = [
            _Matrix(each) if id(each) in known else _Other(each) for each in parameters
        ]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Against the gradients, in place; `rate`: the share."""
        for each in self._own:
            if each.parameter.grad is not None:
                each.step(each.parameter.grad, rate)


class _Matrix:
    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter, self._size, self._momentum = parameter, _size(parameter), torch.zeros_like(parameter)

    def step(self, grad: Tensor, rate: float) -> None:
        self._momentum.lerp_(grad, 1 - _MOMENTUM)
        ahead = grad.lerp(self._momentum, _MOMENTUM)
        step = orthogonal(ahead.flatten(1)).view_as(ahead)
        length = step.square().mean().sqrt().clamp(min=torch.finfo(step.dtype).tiny)
        self.parameter.sub_(step * (rate * self._size / length))


class _Other:
    """By Adam (Kingma, Ba 2015). Not torch's own, as making any of its optimizers imports its compiler, a second
    or more of every process's (findings/torch-optimizer-imports-compiler.sh, torch 2.15.0).
    """

    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter, self._size, self._steps = parameter, _size(parameter), 0
        self._mean, self._square = torch.zeros_like(parameter), torch.zeros_like(parameter)

    def step(self, grad: Tensor, rate: float) -> None:
        self._steps += 1
        self._mean.lerp_(grad, 1 - _BETAS[0])
        self._square.lerp_(grad.square(), 1 - _BETAS[1])
        mean, square = (
            own / (1 - beta**self._steps) for own, beta in zip((self._mean, self._square), _BETAS, strict=True)
        )
        self.parameter.addcdiv_(mean, square.sqrt_().add_(_EPS), value=-rate * self._size)


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix (m, n) whose singular values are one, by a Newton-Schulz iteration: they come to lie
    between 0.7 and 1.2, but for those that are next to nothing beside the greatest.
    """
    a, b, c = _COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.T if is_tall else matrix
    found = found / found.norm().clamp(min=torch.finfo(matrix.dtype).tiny)
    for _ in range(_ITERATIONS):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.T if is_tall else found


def _size(values: Tensor) -> float:
    return float(values.detach().square().mean().sqrt())
