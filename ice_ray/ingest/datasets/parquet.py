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
from ice_ray.ingest.datasets.base import Dataset, Labels, RowImage
from ice_ray.ingest.datasets.decode import decode

_PREFIXES = {"train": ("train",), "val": ("val", "dev"), "test": ("test",)}
_LABEL_COLUMNS = ("label", "labels", "fine_label")
_IMAGE_COLUMNS = ("image", "img")


class Parquet(Dataset):
    """Files `{train,val,test}*.parquet` below a folder; images as bytes or as {bytes, path} structs."""

    def __init__(self, path: str, image_size: int | None = None) -> None:
        root = Path(path)
        if not root.is_dir():
            raise DataError(f"data '{path}': no such folder; give the folder that holds the parquet files")
        files = sorted(root.rglob("*.parquet"))
        if not files:
            raise DataError(f"data '{path}': no .parquet file in it")
        self._size = image_size
        self._files = {
            split: [file for file in files if file.name.startswith(prefixes)] for split, prefixes in _PREFIXES.items()
        }
        self._files = {split: chosen for split, chosen in self._files.items() if chosen}
        if "train" not in self._files:
            raise DataError(f"data '{path}': no file named train*.parquet among {len(files)} parquet files")
        tables = {split: [_label_column(file) for file in chosen] for split, chosen in self._files.items()}
        self._starts = {split: np.cumsum([0, *map(len, columns)]) for split, columns in tables.items()}
        self.labels = {split: np.concatenate(columns) for split, columns in tables.items()}
        self.classes = _class_count(self._files["train"][0]) or int(self.labels["train"].max(initial=-1)) + 1
        self.check_labels(f"data '{path}'")

    def read(self, split: str, rows: NDArray[np.int64]) -> Iterator[RowImage]:
        starts = self._starts[split]
        owners = np.searchsorted(starts, rows, side="right") - 1
        for owner in dict.fromkeys(owners.tolist()):
            file, local = self._files[split][owner], rows[owners == owner] - starts[owner]
            for row, content in zip(local, _images(file, local), strict=True):
                name = f"{file} row {row}"
                if content is None:
                    yield RowImage(name, None, f"{name}: no image bytes")
                else:
                    yield decode(name, content, self._size)


def _label_column(file: Path) -> Labels:
    try:
        schema = pq.read_schema(file)
        column = next((name for name in _LABEL_COLUMNS if name in schema.names), None)
        if column is None or not pa.types.is_integer(schema.field(column).type):
            raise DataError(f"{file}: no integer column named {' or '.join(_LABEL_COLUMNS)}; it has {schema.names}")
        if not any(name in schema.names for name in _IMAGE_COLUMNS):
            raise DataError(f"{file}: no column named {' or '.join(_IMAGE_COLUMNS)}; it has {schema.names}")
        labels = pq.read_table(file, columns=[column]).column(0)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read as parquet ({str(error).splitlines()[0]})") from error
    if labels.null_count:
        raise DataError(f"{file}: {labels.null_count} rows have no label")
    return np.asarray(labels.to_numpy(), dtype=np.int64)


def _images(file: Path, rows: NDArray[np.int64]) -> Iterator[bytes | None]:
    column = next(name for name in pq.read_schema(file).names if name in _IMAGE_COLUMNS)
    for value in pq.read_table(file, columns=[column]).column(0).take(pa.array(rows)).to_pylist():
        content = value.get("bytes") if isinstance(value, dict) else value
        yield content if isinstance(content, bytes) else None


def _class_count(file: Path) -> int | None:
    """The number of class names that Hugging Face's schema metadata gives, if any."""
    metadata = pq.read_schema(file).metadata or {}
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        names = next((features[name]["names"] for name in _LABEL_COLUMNS if "names" in features.get(name, {})), None)
    except (ValueError, AttributeError, TypeError):
        return None
    return len(names) if names else None
