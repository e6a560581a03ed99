"""What a network returns, and the logits in it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

NAMES = ("logits", "out")
"""Under which libraries return logits that are not alone (Hugging Face's, torchvision's)."""


def logits_of(output: object) -> Tensor:
    """The logits in what a network has returned: itself, if it is a tensor; else what is called `logits` or `out`; else
    the first of several, as where auxiliary heads answer too.

    Raises:
        TypeError: there are none to be found; says what there is instead.

    >>> import torch
    >>> logits_of({"out": torch.ones(1), "aux": torch.zeros(1)})
    tensor([1.])
    >>> logits_of((torch.ones(1), torch.zeros(1)))
    tensor([1.])
    """
    found = _candidate(output)
    if not isinstance(found, Tensor):
        raise TypeError(f"it returns {described(output)}, in which no logits can be found")
    return found


def _candidate(output: object) -> object:
    if isinstance(output, Tensor):
        return output
    for name in NAMES:
        held = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(held, Tensor):
            return held
    if isinstance(output, (tuple, list)) and output:
        return output[0]
    tensors = [each for each in output.values() if isinstance(each, Tensor)] if isinstance(output, Mapping) else []
    return tensors[0] if len(tensors) == 1 else None


def described(output: object) -> str:
    """What a network has returned, in a few words.

    >>> import torch
    >>> described({"a": torch.ones(2, 3), "b": None})
    'a dict (a: a tensor (2, 3), b: NoneType)'
    """
    name = type(output).__name__
    article = "an" if name[0] in "AEIOUaeiou" else "a"
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)}"
    if isinstance(output, Mapping):
        return f"{article} {name} ({', '.join(f'{key}: {described(held)}' for key, held in output.items())[:200]})"
    if isinstance(output, (tuple, list)):
        return f"{article} {name} ({', '.join(map(described, output))[:200]})"
    return name


class Answering(nn.Module):
    """A network that returns its logits and nothing else.

    Args:
        model: whose output `logits_of` understands.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, classes)."""
        return logits_of(self.model(images))
