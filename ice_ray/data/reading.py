"""Images of a torch Dataset: read once and held, or read anew for every pass where they do not fit or are augmented."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ice_ray.data.given import axes, image_set, pair_of
from ice_ray.data.images import ImageSet, ImageSource
from ice_ray.data.placement import free_memory, tensor_to_device
from ice_ray.errors import UserError
from ice_ray.progress import progress_bar
from ice_ray.randomness import seed_of
from ice_ray.wording import counted

_SAMPLE = (
    32  # items that are read twice: of flips of every second image all but one in four thousand million sets differ
)
_SHARE_OF_MEMORY = 0.5
_SECONDS_UNSEEN = 1.0
"""What is read in less shows no bar."""


@contextmanager
def told_of(name: str) -> Iterator[None]:
    """What code of the user's raises while its block runs, in one line.

    Args:
        name: the argument that it belongs to.

    Raises:
        UserError: it raised something.
    """
    try:
        yield
    except Exception as error:  # datasets, transforms and collate_fn may raise anything
        raise UserError(f"{name}: {_reason(error)}") from error


@dataclass(frozen=True)
class Reader:
    """How items of a map-style dataset are read: as the user's own DataLoader would.

    Attributes:
        name: the argument that they come from, for messages.
        dataset: what gives an item for a key.
        keys: of the items that count, in order.
        collate: makes a batch of a list of items; torch's, where None.
        workers: processes that read.
        batch: items of a batch, where all are read.
        options: more of DataLoader's arguments.
    """

    name: str
    dataset: Any
    keys: Sequence[Any]
    collate: Callable[[list[Any]], Any] | None = None
    workers: int = 0
    batch: int = 64
    options: Mapping[str, Any] = field(default_factory=dict)

    def read(self, parts: Sequence[Sequence[int]], seed: int) -> Iterator[ImageSet]:
        """The items of these numbers, a batch a part.

        Args:
            seed: of what a transform draws from torch, numpy and random, whose own states are left as they are.

        Raises:
            UserError: whatever the dataset raises, or items that are no images with labels.
        """
        workers = min(self.workers, len(parts))
        loader: DataLoader[Any] = DataLoader(
            self.dataset,
            batch_sampler=[[self.keys[number] for number in part] for part in parts],
            collate_fn=self.collate,
            num_workers=workers,
            generator=torch.Generator().manual_seed(seed),
            **(self.options if workers else {}),
        )
        chance = Chance(seed)
        with told_of(self.name), chance.drawn():
            batches = iter(loader)
        for part in parts:
            places = [self.keys[number] for number in part]
            with told_of(self.name), chance.drawn():
                batch = next(batches)
            found = batch if isinstance(batch, ImageSet) else image_set(*pair_of(batch, self.name), self.name, places)
            if len(found) != len(part):
                raise UserError(
                    f"{self.name}: collate_fn makes {counted(len(found), 'image')} of {counted(len(part), 'item')}"
                )
            yield found

    def __len__(self) -> int:
        return len(self.keys)


class ReadImages(ImageSource):
    """Items of a map-style dataset, read anew for every pass.

    Args:
        sample: some of them, as read at first.
        is_augmented: whether an item read twice is another image.
    """

    def __init__(
        self, reader: Reader, sample: ImageSet, is_augmented: bool, device: torch.device = torch.device("cpu")
    ) -> None:
        self._reader, self._sample, self._device = reader, sample, device
        self.is_augmented = is_augmented

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self._sample.image_shape

    @property
    def dtype(self) -> torch.dtype:
        return self._sample.dtype

    @property
    def device(self) -> torch.device:
        return self._device

    def to(self, device: torch.device) -> ReadImages:
        return ReadImages(self._reader, self._sample, self.is_augmented, device)

    def alone(self) -> ReadImages:
        """The same, read without other processes."""
        return ReadImages(replace(self._reader, workers=0), self._sample, self.is_augmented, self._device)

    def fingerprint(self) -> str:
        """A digest of a sample of them: a pass over all would cost as much as an epoch."""
        keys = hashlib.blake2b(repr(list(self._reader.keys)).encode(), digest_size=16).hexdigest()
        return f"{keys}-{self._sample.fingerprint()}"

    def shuffled(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(len(self), generator=generator)

    def fetch(self, order: Tensor, sizes: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """What is drawn by transforms follows from `order`: the same images in the same order are the same again."""
        parts = [part.tolist() for part in order.split(list(sizes))]
        seed = seed_of("reading", hashlib.blake2b(order.numpy().tobytes(), digest_size=8).hexdigest())
        batches = self._reader.read([part for part in parts if part], seed)
        height, width = self.image_shape[1:]
        for part in parts:
            found = next(batches) if part else None
            if found is None:
                pixels = torch.empty((0, height, width, self.image_shape[0]), dtype=self.dtype)
                labels = torch.empty(0, dtype=torch.int64)
            else:
                check_alike(found, self._sample, self._reader.name)
                pixels, labels = found.images, found.labels
            yield tensor_to_device(pixels, self._device), tensor_to_device(labels, self._device)


@dataclass(frozen=True)
class Found:
    """Images that a dataset gives.

    Attributes:
        is_augmented: whether an item read twice is another image.
    """

    images: ImageSource
    is_augmented: bool


def read_items(reader: Reader, progress: bool | None = None, hold_augmented: bool = False) -> Found:
    """The items of a dataset: in memory where they are the same at every reading and fit there.

    Args:
        progress: whether a bar shows how far it is, as `progress_bar` has it.
        hold_augmented: whether those that differ are held as they are read first.

    Raises:
        UserError: there are none, they cannot be read, or are no labelled images of one size.
    """
    if not len(reader):
        raise UserError(f"{reader.name}: there are no images in it")
    rows = np.unique(np.linspace(0, len(reader) - 1, min(_SAMPLE, len(reader))).round().astype(int)).tolist()
    sample, again = (next(reader.read([part], seed)) for seed, part in ((0, rows), (1, rows[::-1])))
    check_alike(again, sample, reader.name)
    is_augmented = not (
        torch.equal(sample.images, again.images.flip(0)) and torch.equal(sample.labels, again.labels.flip(0))
    )
    needed = len(reader) * sample.images[0].nbytes
    if needed > _SHARE_OF_MEMORY * free_memory() or (is_augmented and not hold_augmented):
        return Found(ReadImages(reader, sample, is_augmented), is_augmented)
    images = torch.empty((len(reader), *sample.images.shape[1:]), dtype=sample.dtype)
    labels = torch.empty(len(reader), dtype=torch.int64)
    parts = [range(start, min(start + reader.batch, len(reader))) for start in range(0, len(reader), reader.batch)]
    with _bar(len(reader), reader.name, progress) as bar:
        for part, found in zip(parts, reader.read(parts, 0), strict=True):
            check_alike(found, sample, reader.name)
            images[part.start : part.stop], labels[part.start : part.stop] = found.images, found.labels
            bar.update(len(part))
    return Found(ImageSet(images, labels), is_augmented)


def read_batches(batches: Iterable[Any], name: str, progress: bool | None = None) -> ImageSet:
    """All that one pass over batches gives, held.

    Args:
        progress: whether a bar shows how far it is, as `progress_bar` has it.

    Raises:
        UserError: there is nothing, more than memory holds, or no labelled images of one size.
    """
    found: list[ImageSet] = []
    room, used, count = _SHARE_OF_MEMORY * free_memory() / 2, 0, 0  # for a moment they are there twice
    with told_of(name):
        coming = iter(batches)
    with _bar(None, name, progress) as bar:
        while True:
            with told_of(name):
                batch = list(islice(coming, 1))
            if not batch:
                break
            images, labels = pair_of(batch[0], name)
            if axes(labels) == 0 and not isinstance(labels, str):
                raise UserError(f"{name}: it gives items one by one: wrap it, DataLoader({name}, batch_size=64)")
            found.append(image_set(images, labels, name, count))
            check_alike(found[-1], found[0], name)
            used, count = used + found[-1].images.nbytes, count + len(found[-1])
            bar.update(len(found[-1]))
            if used > room:
                raise UserError(
                    f"{name}: after {count} images, {used / 1e9:.1f} GB, there are more than memory holds (or there is "
                    "no end to them): give a map-style Dataset, which is read batch by batch, or a ray.data.Dataset"
                )
    if not count:
        raise UserError(f"{name}: there are no images in it")
    return ImageSet(torch.cat([each.images for each in found]), torch.cat([each.labels for each in found]))


def _bar(total: int | None, name: str, shown: bool | None) -> Any:
    return progress_bar(total, f"reading {name}", "image", shown, delay=_SECONDS_UNSEEN)


def check_alike(images: ImageSource, others: ImageSource, name: str) -> None:
    """Raises UserError: images of another size or type than the others of the same argument."""
    if images.image_shape != others.image_shape:
        sizes = f"{others.image_shape} and {images.image_shape}"
        raise UserError(
            f"{name}: images of shapes {sizes}: bring all to one size (Resize and CenterCrop in the transform)"
        )
    if images.dtype != others.dtype:
        kinds = " and ".join(str(each.dtype).removeprefix("torch.") for each in (others, images))
        raise UserError(f"{name}: images are {kinds} by turns: give one type")


class Chance:
    """A state of torch's, numpy's and random's generators of its own, beside that of all others."""

    def __init__(self, seed: int) -> None:
        self._own: tuple[Any, Any, Any] | None = None
        self._seed = seed

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """While its block runs, what is drawn is drawn from its own state."""
        others = _states()
        if self._own is None:
            torch.default_generator.manual_seed(self._seed)
            random.seed(self._seed)
            np.random.seed(self._seed % 2**32)  # noqa: NPY002 - the state that transforms of others draw from
        else:
            _restore(self._own)
        try:
            yield
        finally:
            self._own = _states()
            _restore(others)


def _states() -> tuple[Any, Any, Any]:
    return torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002


def _restore(states: tuple[Any, Any, Any]) -> None:
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])  # noqa: NPY002


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    if isinstance(error, UserError):  # ours; of a process that reads with its traceback
        return lines[-1].partition("Error: ")[2] if "Original Traceback" in str(error) else lines[0]
    said = lines[-1] if "Original Traceback" in str(error) else f"{type(error).__name__}: {lines[0]}"
    if "to be equal size" in said:  # torch.stack's
        sizes = said.partition("equal size, but ")[2]
        return f"items differ in size ({sizes}): bring all to one, Resize and CenterCrop in the transform"
    if "default_collate" in said and "PIL." in said:
        return (
            "its items are PIL images: the transform lacks ToTensor() and Normalize(mean, std); or PILToTensor(), and "
            "mean and std in preprocessing"
        )
    return said
