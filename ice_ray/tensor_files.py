"""Tensors in safetensors files, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from ice_ray.address import StoragePath, storage_path


def write_tensors(
    path: Path | StoragePath, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write one safetensors file, atomically."""
    # As bytes: the library's own writer says in words alone what the system said in numbers.
    storage_path(path).write(_packed(tensors, metadata))


def tensors_size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the file that `write_tensors` would write of them, without metadata of its own."""
    return len(_packed(tensors))


def _packed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file. What is one tensor is in it once, under its first name; its other names are in the metadata,
    where the library's own `save_model` puts them.
    """
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    names: dict[object, str] = {}
    memory: set[int] = set()
    for name, tensor in tensors.items():
        memory_of = tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
        if tensor.numel() and memory_of in names:
            aliases[name] = names[memory_of]
            continue
        names[memory_of] = name
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage().data_ptr()
        kept[name] = own.clone() if storage in memory else own  # parts of one storage are tensors of their own here
        memory.add(storage)
    return bytes(safetensors.torch.save(kept, {**aliases, **(metadata or {})} or None))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `write_tensors` has written into a file of this machine: tensors by all their names, and the metadata.

    Raises:
        SafetensorError: it is no such file.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
        tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    aliases = {name: tensors[own] for name, own in metadata.items() if own in tensors and name not in tensors}
    return tensors | aliases, metadata
