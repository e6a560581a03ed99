"""Which columns of a parquet file hold images and labels, and what its metadata calls the classes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ice_ray.errors import DataError
from ice_ray.ingest.datasets.base import Labels
from ice_ray.ingest.datasets.labels import numbers_of, renumbered

_LABELS = ("label", "labels", "fine_label")
_IMAGES = ("image", "img")


@dataclass(frozen=True)
class Columns:
    """What a file's head says.

    Attributes:
        image, label: names of the columns that are read.
        kind: of the labels.
        names: of the classes, as Hugging Face's metadata gives them for the labels' column; none where it does not.
        notes: what was chosen between.
    """

    file: Path
    image: str
    label: str
    kind: pa.DataType
    names: tuple[str, ...]
    notes: tuple[str, ...]

    def labels(self, names: tuple[str, ...], others: str) -> Labels:
        """The file's labels, int64 (N,); -1 throughout where it has none.

        Args:
            names: of the classes, as the data's other files have them; none where nobody names them.
            others: which file those are of.

        Raises:
            DataError: a label that is none, named by row, a column of another kind, or a file that cannot be read.
        """
        is_text = _is_text(self.kind.value_type if pa.types.is_dictionary(self.kind) else self.kind)
        if not (_is_number(self.kind) or (is_text and names)):
            mend = "; number the classes from 0, or name them in the file's metadata" if is_text else ""
            raise DataError(
                f"{self.file}: no integer column named {' or '.join(_LABELS)}; {self.label} is {self.kind}{mend}"
            )
        try:
            # Not `read_table`, which makes columns of folders like split=train/, too.
            with pq.ParquetFile(self.file) as parquet:
                column = parquet.read(columns=[self.label]).column(self.label)
        except Exception as error:  # whatever a damaged page is made of
            raise _unreadable(self.file, error) from error
        labels = numbers_of(column, names, str(self.file))
        return renumbered(labels, self.names, names, str(self.file), others) if self.names and not is_text else labels


def columns_of(files: list[Path]) -> dict[Path, Columns]:
    """Those of every file of a data set: of several that would do, the ones that all files have.

    Raises:
        DataError: a file lacks a column, or cannot be read.
    """
    schemas = {file: _schema(file) for file in files}
    common = set.intersection(*(set(schema.names) for schema in schemas.values()))
    return {file: _chosen(file, schema, common) for file, schema in schemas.items()}


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except Exception as error:  # a file's extension types are built by code of Ray's, which may raise anything
        raise _unreadable(file, error) from error


def _chosen(file: Path, schema: pa.Schema, common: set[str]) -> Columns:
    labels, images = (_present(names, schema, common) for names in (_LABELS, _IMAGES))
    if not labels:
        raise DataError(f"{file}: no integer column named {' or '.join(_LABELS)}; it has {schema.names}")
    if not images:
        raise DataError(f"{file}: no column named {' or '.join(_IMAGES)}; it has {schema.names}")
    kinds = {name: schema.field(name).type for name in (*labels, *images)}
    label = next((name for name in labels if pa.types.is_integer(kinds[name])), labels[0])
    encoded = [name for name in images if _holds_bytes(kinds[name])]
    if not encoded:
        raise DataError(
            f"{file}: column {images[0]} is {kinds[images[0]]}; it must hold encoded images, as bytes or as "
            "structs with a field bytes"
        )
    notes = (*_choice("labels", label, labels), *_choice("images", encoded[0], encoded))
    return Columns(file, encoded[0], label, kinds[label], _class_names(schema.metadata or {}, label), notes)


def _present(names: tuple[str, ...], schema: pa.Schema, common: set[str]) -> list[str]:
    """Which of some names a file's columns have, those that every file has first."""
    return sorted((name for name in names if name in schema.names), key=lambda name: name not in common)


def _choice(what: str, chosen: str, found: list[str]) -> list[str]:
    """In words which of several columns is read; every file of the data has the same ones, mostly."""
    others = " and ".join(name for name in found if name != chosen)
    return [f"{what} are read from column {chosen}, not from {others}"] if others else []


def _unreadable(file: Path, error: Exception) -> DataError:
    said = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(f"{file} cannot be read as parquet ({said})")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_null(kind))


def _class_names(metadata: dict[bytes, bytes], label: str) -> tuple[str, ...]:
    """The class names that Hugging Face's schema metadata gives, if any."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        names = features.get(label, {}).get("names", ())
        return tuple(str(name) for name in names) if isinstance(names, list) else ()
    except (ValueError, AttributeError, TypeError, RecursionError):
        return ()
