"""Which split a file holds, by its name and those of the folders that it lies in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ice_ray.errors import DataError

_WORDS = {
    "train": ("train", "training", "trainset"),
    "val": ("val", "valid", "validation", "valset", "dev", "devset"),
    "test": ("test", "testing", "testset"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SHARD = re.compile(r"-\d+-of-(\d+)\.")


@dataclass(frozen=True)
class NamedSplit:
    """A split as a path names it. Files that differ in more than the split's own numbering are of two sets: several
    configurations or revisions of one dataset, which must not be read as one.

    Attributes:
        split: train, val or test.
        origin: what tells the set from others: the folder, the words up to the split's own, how many shards there are.
    """

    split: str
    origin: tuple[str, ...]


def named_split(path: Path) -> NamedSplit | None:
    """The split that a file's own name has among its words, else that of the nearest folder; None where none has.

    Args:
        path: below the data's folder, which has no say.

    Raises:
        DataError: a name of two splits.

    >>> named_split(Path("fine/train-00000-of-00005.parquet")).split, named_split(Path("a/split=dev/0.parquet")).split
    ('train', 'val')
    >>> named_split(Path("trained/valuation.parquet"))
    """
    parts = path.parts
    for depth in reversed(range(len(parts))):
        words = [word.lower() for word in _WORD.findall(parts[depth])]
        places = [place for place, word in enumerate(words) if word in _SPLIT_OF]
        splits = dict.fromkeys(_SPLIT_OF[words[place]] for place in places)
        if len(splits) > 1:
            raise DataError(f"'{path}' names two splits, {' and '.join(splits)}: rename it, or move it elsewhere")
        if places:
            is_file = depth == len(parts) - 1
            shards = _SHARD.findall(parts[-1])[:1]
            where = ("file" if is_file else "folder", *parts[:depth])
            return NamedSplit(next(iter(splits)), (*where, "/", *words[: places[0] + 1], *shards))
    return None


def check_one_set(split: str, sets: Iterable[tuple[Path, tuple[str, ...]]]) -> None:
    """Raises DataError: two of the files (each with its set) hold the same split, and are not of one set."""
    first: tuple[Path, tuple[str, ...]] | None = None
    for path, origin in sets:
        first = first or (path, origin)
        if origin != first[1]:
            raise DataError(
                f"'{first[0]}' and '{path}' both hold split {split} (two configurations or revisions of the data?): "
                "give the folder of one of them, or what belongs together one folder and one name"
            )
