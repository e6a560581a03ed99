"""What a torch DataLoader says of how its dataset is read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch.utils.data as torch_data

from ice_ray.data.reading import Chance, Reader, told_of
from ice_ray.errors import UserError

_MOST_DRAWS = 4  # a dataset's length that are asked of a sampler: some have no end
_ONCE = {
    "RandomSampler": "its RandomSampler's replacement and num_samples are not honoured, each comes once an epoch",
    "WeightedRandomSampler": "its WeightedRandomSampler's weights are not honoured, each comes once an epoch",
}


def reads_by_key(loader: torch_data.DataLoader[Any]) -> bool:
    """Whether items can be asked for one by one: its dataset is map-style and the loader makes the batches."""
    return not isinstance(loader.dataset, torch_data.IterableDataset) and loader.batch_sampler is not None


def reader_of(loader: torch_data.DataLoader[Any], name: str) -> tuple[Reader, str]:
    """How its items are read, and what is to be said of its sampler; empty where there is nothing.

    The sampler says which items count, and no more: order, batches and a last batch that is dropped are ice_ray's own.

    Raises:
        UserError: the sampler raises, or draws nothing.
    """
    keys, note = _keys(loader, name)
    options = {
        "timeout": loader.timeout,
        "worker_init_fn": loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context,
        "prefetch_factor": loader.prefetch_factor,
    }
    batch = loader.batch_size or 64
    return Reader(name, loader.dataset, keys, loader.collate_fn, loader.num_workers, batch, options), note


def _keys(loader: torch_data.DataLoader[Any], name: str) -> tuple[Sequence[Any], str]:
    batches: Any = loader.batch_sampler
    sampler: Any = batches.sampler if type(batches) is torch_data.BatchSampler else batches
    dataset: Any = loader.dataset
    kind = type(sampler).__name__
    if type(sampler) is torch_data.SubsetRandomSampler:
        return list(sampler.indices), ""
    with told_of(name):
        whole = range(len(dataset))
    if type(sampler) in (torch_data.SequentialSampler, torch_data.RandomSampler, torch_data.WeightedRandomSampler):
        is_plain = len(sampler) == len(whole) and not getattr(sampler, "replacement", False)
        return whole, "" if is_plain else f"{name}: all {len(whole)} images of its dataset are taken: {_ONCE[kind]}"
    with told_of(name), Chance(0).drawn():
        drawn = list(islice(sampler, _MOST_DRAWS * max(1, len(whole))))
    keys = list(dict.fromkeys(key for batch in drawn for key in batch) if sampler is batches else dict.fromkeys(drawn))
    if not keys:
        raise UserError(f"{name}: its sampler {kind} draws nothing")
    if all(isinstance(key, int) for key in keys):
        keys.sort()
    return (
        keys,
        f"{name}: the {len(keys)} images that one pass of its sampler {kind} draws are taken, each once an epoch",
    )
