"""Checks that a network answers images with logits, in eval mode and in training, and explains why one does not."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from ice_ray.errors import UserError
from ice_ray.models.answers import described, logits_of
from ice_ray.models.copies import copied
from ice_ray.models.frozen import freeze
from ice_ray.models.ties import join, ties_of
from ice_ray.wording import counted

_USUAL_SIZES = (8, 16, 28, 32, 64, 96, 128, 160, 192, 224, 256, 299, 384, 448, 512)
_USUAL_CHANNELS = (1, 3, 4)
_CLOSE = 1e-3
_MOST_PIXELS = 64 * 64
"""That other images are tried with for real: what attention costs grows with the square of their number."""


def copied_to_cpu(model: nn.Module, name: str = "the model") -> nn.Module:
    """A copy in float32 on the CPU.

    Raises:
        UserError: it cannot be copied.
    """
    try:
        own = copied(model).to("cpu", torch.float32)
    except Exception as error:  # the network is anybody's
        raise UserError(f"{name} cannot be copied (copy.deepcopy raises {raised(error)})") from error
    join(own, ties_of(model))
    return own


def check_answers(model: nn.Module, image_shape: tuple[int, int, int], classes: int | None, name: str) -> None:
    """Ask copies of a network for the logits of two images (C, H, W), in eval mode and in training.

    Args:
        classes: how many there must be at least, where that is known.
        name: what messages call the network.

    Raises:
        UserError: it takes no such images, or what it returns are no logits (N, classes) to train and to measure by.
    """
    own = freeze(copied_to_cpu(model, name), ())
    answering = _answer(own.eval(), image_shape, classes, name, "eval mode")
    if not bool(answering.isfinite().all()):
        raise UserError(f"{name} gives NaN or infinity for images of noise in eval mode: are its weights in order?")
    _check_repeats(own, answering, image_shape, name)
    training = _answer(own.train(), image_shape, classes, name, "training")
    if answering.shape != training.shape:
        raise UserError(
            f"{name} gives logits {tuple(answering.shape)} in eval mode and {tuple(training.shape)} in training"
        )
    if not training.requires_grad:
        raise UserError(f"{name} gives logits that cannot be trained: something in its forward pass detaches them")


def _answer(model: nn.Module, image_shape: tuple[int, int, int], classes: int | None, name: str, mode: str) -> Tensor:
    try:
        output = _asked(model, image_shape)
    except Exception as error:  # the network is anybody's
        raise UserError(_failure(model, image_shape, name, mode, error)) from error
    try:
        logits = logits_of(output)
    except TypeError:
        raise UserError(_unclear(output, name, mode)) from None
    if logits.ndim != 2 or len(logits) != 2:
        raise UserError(f"{name} gives {described(output)} for two images in {mode}; it must give logits (2, classes)")
    if not logits.is_floating_point():
        raise UserError(f"{name} gives numbers of type {logits.dtype} in {mode}, not logits: leave out argmax and such")
    if classes is not None:
        _check_classes(output, logits, classes, name, mode)
    return logits


def _check_repeats(model: nn.Module, logits: Tensor, image_shape: tuple[int, int, int], name: str) -> None:
    again = logits_of(_asked(model, image_shape, seed=1))
    if bool((again - logits).abs().max() > _CLOSE * logits.abs().max()):
        raise UserError(
            f"{name} gives other logits for the same images each time in eval mode: something in its forward pass "
            "draws at random there too (F.dropout wants training=self.training)"
        )


def _check_classes(output: object, logits: Tensor, classes: int, name: str, mode: str) -> None:
    if logits.shape[1] < classes:
        raise UserError(
            f"{name} gives logits of {logits.shape[1]} classes in {mode}; the data needs logits of {classes} classes"
        )
    several = output if isinstance(output, (tuple, list)) else ()
    fitting = [each for each in several if isinstance(each, Tensor) and each.shape == (len(logits), classes)]
    if logits.shape[1] != classes and fitting:
        raise UserError(_unclear(output, name, mode))


def _unclear(output: object, name: str, mode: str) -> str:
    return (
        f"{name} returns {described(output)} in {mode}, and it is not clear which are the logits: return a tensor "
        "(N, classes), or have it first, or under the name `logits`"
    )


def _asked(model: nn.Module, image_shape: tuple[int, int, int], seed: int = 0) -> object:
    parameter = next(model.parameters())
    images = torch.rand(2, *image_shape, generator=torch.Generator().manual_seed(0)).to(parameter)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        return model(images)


def _failure(model: nn.Module, shape: tuple[int, int, int], name: str, mode: str, error: Exception) -> str:
    tried = _Tried(model, max(_MOST_PIXELS, shape[1] * shape[2]))
    other = next(_that_work(tried, shape), None)
    given = f"{shape[2]}x{shape[1]} pixels"
    if shape[2] in _USUAL_CHANNELS and shape[0] not in _USUAL_CHANNELS and tried.bears((shape[2], *shape[:2])):
        return (
            f"{name} takes images of {shape[2]} channels, not of {shape[0]}: the channels come first, (C, H, W) = "
            f"{(shape[2], *shape[:2])}, not {shape}"
        )
    if other is None:
        return f"{name} raises {raised(error)} for an image of {given} and {shape[0]} channels, in {mode}"
    channels, size, _ = other
    if channels != shape[0]:
        at = "" if (size, size) == shape[1:] else f", of {size}x{size} pixels"
        return (
            f"{name} takes images of {counted(channels, 'channel')}{at}, not of {shape[0]}, as in (C, H, W) = {shape}"
        )
    least = size > max(shape[1:]) and tried.bears((channels, size + 32, size + 32))
    needs = f"it needs at least {size}x{size}" if least else f"it takes {size}x{size}"
    return f"{name} does not take an image of {given}: {needs} ({raised(error)})"


def _that_work(tried: _Tried, shape: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
    """Other shapes that a network takes: first of another number of channels, then of another size, then of both."""
    first = next((layer.in_channels for layer in tried.model.modules() if isinstance(layer, nn.Conv2d)), shape[0])
    channels = [each for each in dict.fromkeys((first, *_USUAL_CHANNELS)) if each != shape[0]]
    sizes = [each for each in _USUAL_SIZES if (each, each) != shape[1:]]
    others = [(each, *shape[1:]) for each in channels]
    others += [(each, size, size) for each in (shape[0], first) for size in sizes]
    return (other for other in others if tried.bears(other))


class _Tried:
    """Whether a network takes images of other shapes; of large ones by their shapes alone, at no cost.

    Args:
        most: pixels of an image with which it is really run.
    """

    def __init__(self, model: nn.Module, most: int) -> None:
        self.model, self._most = model, most

    def bears(self, shape: tuple[int, int, int]) -> bool:
        try:
            with torch.no_grad():
                _asked(self.model if shape[1] * shape[2] <= self._most else self._hollow, shape)
        except Exception:  # the network is anybody's
            return False
        return True

    @cached_property
    def _hollow(self) -> nn.Module:
        return copied(self.model).to("meta")


def raised(error: BaseException) -> str:
    """What was raised, and where outside of torch and of this package."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    package = str(Path(torch.__file__).parent)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(package)]
    own = [frame for frame in frames if not frame.filename.startswith(str(Path(__file__).parent.parent))]
    where = f", {Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}" if own else ""
    return f"{type(error).__name__}: {first}{where}"
