"""Parquet files as Hugging Face writes them: a column of encoded images, a column of labels, splits by file name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ice_ray.errors import DataError
from ice_ray.ingest.datasets.base import Dataset, Labels, RowImage, numbered
from ice_ray.ingest.datasets.decode import decode

_PREFIXES = {"train": ("train",), "val": ("val", "dev"), "test": ("test",)}
_LABEL_COLUMNS = ("label", "labels", "fine_label")
_IMAGE_COLUMNS = ("image", "img")


class Parquet(Dataset):
    """Files below a folder, at any depth; images as bytes or as {bytes, path} structs.

    A file's split is what its name begins with (train, val or dev, test), or else the name of the nearest folder that
    begins so. Where no name says anything, all of them are for training.
    """

    pad = 4
    flip = True

    def __init__(self, path: str, image_size: int | None = None) -> None:
        root = Path(path)
        if not root.is_dir():
            raise DataError(f"data '{path}': no such folder; give the folder that holds the parquet files")
        files = sorted(root.rglob("*.parquet"))
        if not files:
            raise DataError(f"data '{path}': no .parquet file in it")
        self._size = image_size
        self._files = _by_split(root, files)
        if "train" not in self._files:
            raise DataError(f"data '{path}': no file named train*.parquet among {len(files)} parquet files")
        columns = {split: [_label_column(file) for file in chosen] for split, chosen in self._files.items()}
        self._starts = {split: np.cumsum([0, *map(len, found)]) for split, found in columns.items()}
        self.labels = {split: np.concatenate(found) for split, found in columns.items()}
        first = self._files["train"][0]
        self.class_names = _class_names(first) or numbered(int(self.labels["train"].max(initial=-1)))
        self.check_labels(f"data '{path}'")

    def read(self, split: str, rows: NDArray[np.int64]) -> Iterator[RowImage]:
        starts = self._starts[split]
        owners = np.searchsorted(starts, rows, side="right") - 1
        for owner in dict.fromkeys(owners.tolist()):
            file = self._files[split][owner]
            for row, content in _images(file, rows[owners == owner] - starts[owner]):
                name = f"{file} row {row}"
                if isinstance(content, bytes):
                    yield decode(name, content, self._size)
                else:
                    yield RowImage(name, None, f"{name}: {content}")

    def runs(self, split: str) -> NDArray[np.int64]:
        found = zip(self._starts[split][:-1], self._files[split], strict=True)
        return np.concatenate([start + _group_starts(pq.read_metadata(file)) for start, file in found])


def _group_starts(metadata: pq.FileMetaData) -> NDArray[np.int64]:
    """The first row of each row group."""
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return np.cumsum([0, *sizes])[:-1]


def _by_split(root: Path, files: list[Path]) -> dict[str, list[Path]]:
    """The files of each split that there is, in the order of their paths."""
    splits = [_split_of(file.relative_to(root)) for file in files]
    if not any(splits):
        return {"train": files}
    return {
        split: [file for file, own in zip(files, splits, strict=True) if own == split]
        for split in _PREFIXES
        if split in splits
    }


def _split_of(path: Path) -> str | None:
    names = (path.name, *(folder.name for folder in path.parents))
    found = (split for name in names for split, prefixes in _PREFIXES.items() if name.lower().startswith(prefixes))
    return next(found, None)


def _label_column(file: Path) -> Labels:
    try:
        schema = pq.read_schema(file)
        column = next((name for name in _LABEL_COLUMNS if name in schema.names), None)
        if column is None or not pa.types.is_integer(schema.field(column).type):
            raise DataError(f"{file}: no integer column named {' or '.join(_LABEL_COLUMNS)}; it has {schema.names}")
        image = next((name for name in _IMAGE_COLUMNS if name in schema.names), None)
        if image is None:
            raise DataError(f"{file}: no column named {' or '.join(_IMAGE_COLUMNS)}; it has {schema.names}")
        if not _holds_bytes(schema.field(image).type):
            raise DataError(
                f"{file}: column {image} is {schema.field(image).type}; it must hold encoded images, as bytes or as "
                "structs with a field bytes"
            )
        labels = pq.read_table(file, columns=[column]).column(0)
    except DataError:
        raise
    except Exception as error:  # a file's extension types are built by code of Ray's, which may raise anything
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{file} cannot be read as parquet ({said})") from error
    if labels.null_count:
        raise DataError(f"{file}: {labels.null_count} rows have no label")
    return np.asarray(labels.to_numpy(), dtype=np.int64)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_null(kind))


def _images(file: Path, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes | str]]:
    """(row, its image's bytes or what is wrong with it); only the row groups that hold `rows` are read."""
    with pq.ParquetFile(file) as parquet:
        column = next(name for name in parquet.schema_arrow.names if name in _IMAGE_COLUMNS)
        starts = _group_starts(parquet.metadata)
        groups = np.searchsorted(starts, rows, side="right") - 1
        for group in dict.fromkeys(groups.tolist()):
            own = rows[groups == group]
            try:
                table = parquet.read_row_group(group, columns=[column])
                values = table.column(0).take(pa.array(own - starts[group])).to_pylist()
            except (pa.ArrowException, OSError) as error:  # a damaged page takes its whole group with it
                yield from ((int(row), f"cannot be read ({str(error).splitlines()[0]})") for row in own)
                continue
            for row, value in zip(own, values, strict=True):
                content = value.get("bytes") if isinstance(value, dict) else value
                yield int(row), content if content is not None else "no image bytes"


def _class_names(file: Path) -> tuple[str, ...]:
    """The class names that Hugging Face's schema metadata gives, if any."""
    metadata = pq.read_schema(file).metadata or {}
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        names = next((features[name]["names"] for name in _LABEL_COLUMNS if "names" in features.get(name, {})), ())
        return tuple(str(name) for name in names)
    except (ValueError, AttributeError, TypeError):
        return ()
