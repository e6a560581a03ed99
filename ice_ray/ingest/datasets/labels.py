"""From what files say of a row's class to its number."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ice_ray.errors import DataError
from ice_ray.ingest.datasets.base import UNLABELLED, Labels

_LARGEST_LABEL = 1_000_000
_LONGEST = 60
_NAMED = 10  # in a message


def number_of(value: Any, names: tuple[str, ...]) -> int | str:
    """A class's number, from a whole number of any type or from one of its names; else what is wrong with the label.

    Nothing, and what is not a number, stands for a row without a label (-1).

    >>> number_of(2.0, ()), number_of("bee", ("ant", "bee")), number_of(None, ())
    (2, 1, -1)
    >>> number_of(True, ())
    'label True is no integer; number the classes from 0'
    """
    if isinstance(value, (bytes, np.bytes_)):
        value = value.decode(errors="replace")
    if isinstance(value, str) and names:
        shown = ", ".join(names[:_NAMED]) + ", ..." * (len(names) > _NAMED)
        return names.index(value) if value in names else f"label '{value}' is none of the classes {shown}"
    if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return UNLABELLED
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value != int(value):
        said = textwrap.shorten(str(value), _LONGEST, placeholder=" ...")  # of arrays, too
        return f"label {said} is no integer; number the classes from 0"
    if abs(int(value)) > _LARGEST_LABEL:
        return f"label {value} is no class: number the classes 0, 1, 2, ..."
    return int(value)


def numbers_of(column: pa.ChunkedArray, names: tuple[str, ...], origin: str) -> Labels:
    """The classes of a column of `number_of`'s values; -1 throughout where no row has a label.

    Raises:
        DataError: a label that is none, or rows without one among others, named by row.
    """
    values = column.combine_chunks()
    encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    found = [number_of(value, names) for value in encoded.dictionary.to_pylist()]
    places = np.asarray(encoded.indices.cast(pa.int64()).fill_null(len(found)), dtype=np.int64)
    for place, number in enumerate(found):
        if isinstance(number, str) and (rows := np.flatnonzero(places == place)).size:
            raise DataError(f"{origin} row {rows[0]}: {number}")
    numbers = np.array([*(UNLABELLED if isinstance(each, str) else each for each in found), UNLABELLED], np.int64)
    nothing = np.array([*(_is_nothing(value) for value in encoded.dictionary.to_pylist()), True])[places]
    if nothing.any() and not nothing.all():
        raise DataError(f"{origin}: {nothing.sum()} rows have no label, the first is row {np.flatnonzero(nothing)[0]}")
    return numbers[places]


def renumbered(labels: Labels, own: tuple[str, ...], names: tuple[str, ...], origin: str, others: str) -> Labels:
    """Labels by a file's own list of classes as those of another one, by name.

    Raises:
        DataError: a class that the other does not have, or that is not one alone, or a label that is no class.
    """
    if own == names:
        return labels
    for name in own:
        if name not in names:
            raise DataError(f"{origin}: it has a class {name!r}, which {others} does not; are they of one data set?")
        if max(own.count(name), names.count(name)) > 1:
            raise DataError(f"{origin}: its classes are in another order than those of {others}, with {name!r} twice")
    wrong = np.flatnonzero(labels >= len(own))
    if wrong.size:
        raise DataError(f"{origin} row {wrong[0]}: label {labels[wrong[0]]} is none of its {len(own)} classes")
    places: NDArray[np.int64] = np.array([names.index(name) for name in own], np.int64)
    return np.where(labels < 0, labels, places[labels])


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
