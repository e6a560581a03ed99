"""Parquet files: which of their columns are images and labels, and reading them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ice_ray.errors import DataError
from ice_ray.ingest.datasets.base import SPLITS, Dataset, Labels, RowImage, numbered
from ice_ray.ingest.datasets.decode import decode
from ice_ray.ingest.datasets.files import files_below
from ice_ray.ingest.datasets.labels import numbers_of, renumbered
from ice_ray.ingest.datasets.split_names import check_one_set, named_split, part_of, splits_of

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


_LETTERS = re.compile(r"[A-Za-z]+")


class Parquet(Dataset):
    """Files below a folder, at any depth; images as bytes or as {bytes, path} structs.

    A file's split is what a word of its name says (train, val, test and words like them), or else one of the name of
    the nearest folder that has such a word (`train/`, `split=train/`). Where no name says anything, all of them are for
    training. Classes whose names the files' metadata give are the same class where they have the same name.
    """

    pad = 4
    flip = True

    def __init__(self, path: str, image_size: int | None = None) -> None:
        root = Path(path)
        if not root.is_dir():
            raise DataError(f"data '{path}': no such folder; give the folder that holds the parquet files")
        files = sorted(Path(file) for file in files_below(root, lambda name: name.lower().endswith(".parquet")))
        if not files:
            raise DataError(f"data '{path}': no .parquet file in it")
        self._size = image_size
        self._files, self.notes = _by_split(root, files)
        if "train" not in self._files:
            raise DataError(f"data '{path}': no file named train (a word of its name or its folder's) of {len(files)}")
        columns = columns_of([file for chosen in self._files.values() for file in chosen])
        heads = {split: [columns[file] for file in chosen] for split, chosen in self._files.items()}
        self._image_columns = {head.file: head.image for found in heads.values() for head in found}
        named = next((head for found in heads.values() for head in found if head.names), heads["train"][0])
        labels = {
            split: [head.labels(named.names, str(named.file)) for head in found] for split, found in heads.items()
        }
        self._starts = {split: np.cumsum([0, *map(len, found)]) for split, found in labels.items()}
        self.labels = {split: np.concatenate(found) for split, found in labels.items()}
        self.class_names = named.names or numbered(int(self.labels["train"].max(initial=-1)))
        self.notes += tuple(dict.fromkeys(note for found in heads.values() for head in found for note in head.notes))
        self.leave_out_unlabelled()
        self.check_labels(f"data '{path}'")
        self.note_classes_without_images()

    def place(self, split: str, row: int) -> str:
        owner = int(np.searchsorted(self._starts[split], row, side="right")) - 1
        return f"{self._files[split][owner]} row {row - self._starts[split][owner]}"

    def read(self, split: str, rows: NDArray[np.int64]) -> Iterator[RowImage]:
        starts = self._starts[split]
        owners = np.searchsorted(starts, rows, side="right") - 1
        for owner in dict.fromkeys(owners.tolist()):
            file = self._files[split][owner]
            for row, content in _images(file, self._image_columns[file], rows[owners == owner] - starts[owner]):
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


def _by_split(root: Path, files: list[Path]) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """The files of each split that there is, in the order of their paths, and what is to be said of the others.

    Raises:
        DataError: a name of two splits, or two sets of files that hold the same one.
    """
    named = {file: named_split(file.relative_to(root)) for file in files}
    if not any(named.values()):
        check_one_set("train", ((file.relative_to(root), file.relative_to(root).parent.parts) for file in files))
        return {"train": files}, (f"no name says which split a file holds: all {len(files)} are for training",)
    found: dict[str, list[Path]] = {}
    for split in SPLITS:
        own = {file: split_of for file, split_of in named.items() if split_of is not None and split_of.split == split}
        check_one_set(split, ((file.relative_to(root), split_of.origin) for file, split_of in own.items()))
        if own:
            found[split] = list(own)
    notes = [note for split, own in found.items() for note in _on_files(split, own)]
    others = [file.relative_to(root) for file, split_of in named.items() if split_of is None]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        notes.append(f"{others[0]}{more}: left out, as the name of no split is among its words")
    return found, tuple(notes)


def _on_files(split: str, files: list[Path]) -> Iterator[str]:
    """What people may want to know of the files of a split: some are not there, or have names of several kinds."""
    parts = {part_of(file) for file in files}
    counts = {part[2] for part in parts if part}
    if None not in parts and len(counts) == 1 and len(files) < (count := counts.pop()):
        yield f"split {split}: {len(files)} of its {count} files are there"
    kinds = {" ".join(_LETTERS.findall((part_of(file) or (file.stem,))[0])): file.name for file in files}
    if len(kinds) > 1 and all(splits_of(file.name) for file in files):
        yield f"split {split} is read from {' and '.join(sorted(kinds.values())[:2])} alike"


def _images(file: Path, column: str, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes | str]]:
    """(row, its image's bytes or what is wrong with it); only the row groups that hold `rows` are read."""
    with pq.ParquetFile(file) as parquet:
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
