"""Which split a file holds, by its name and those of the folders that it lies in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ice_ray.errors import DataError

_WORDS = {"train": "train|training", "val": "val|valid|validation|dev", "test": "test|testing"}
_NAMED = "|".join(f"(?P<{split}>{words})" for split, words in _WORDS.items())
_SPLIT = re.compile(rf"(?:{_NAMED})(?:sets?|data|images?|imgs?|split)?")  # traindata, testset
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_LETTERS = re.compile(r"[A-Za-z]+")
_SHARD = re.compile(r"-(\d+)-of-(\d+)")
Part = tuple[str, int, int]
"""Of a split's files: the name that they share, a file's number, how many there are."""


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
        part = part_of(Path(parts[depth]))
        words, places = _words(part[0] if part else parts[depth])  # what follows is a number or a hash
        splits = list(dict.fromkeys(places.values()))
        if len(splits) > 1:
            raise DataError(f"'{path}' names two splits, {' and '.join(splits)}: rename it, or move it elsewhere")
        if places:
            is_file = depth == len(parts) - 1
            shards = [found[2]] if (found := _SHARD.search(parts[-1])) else []
            where = ("file" if is_file else "folder", *parts[:depth])
            return NamedSplit(splits[0], (*where, "/", *words[: min(places) + 1], *shards))
    return None


def splits_of(name: str) -> tuple[str, ...]:
    """The splits that one name has among its words.

    >>> splits_of("seg_train"), splits_of("TestSet"), splits_of("train_val"), splits_of("cats")
    (('train',), ('test',), ('train', 'val'), ())
    """
    return tuple(dict.fromkeys(_words(name)[1].values()))


def is_bare(name: str) -> bool:
    """Whether a name is that of a split and no more, bare or as partitions have it.

    >>> is_bare("Train"), is_bare("split=dev"), is_bare("train_extra")
    (True, True, False)
    """
    return _SPLIT.fullmatch(name.lower().removeprefix("split=")) is not None


def check_one_set(split: str, sets: Iterable[tuple[Path, tuple[str, ...]]]) -> None:
    """Files that hold one split must be of one set, each part of it there once.

    Args:
        sets: the files, each with what tells its set from others.

    Raises:
        DataError: two of the files are of two sets.
    """
    files = list(sets)
    is_one_writing = _is_one_writing([path for path, _ in files])
    parts: dict[tuple[Path, Part], Path] = {}
    for path, origin in files:
        part = part_of(path)
        twin = parts.setdefault((path.parent, part), path) if part else path
        other = twin if twin != path else files[0][0]
        if twin != path or (origin != files[0][1] and not is_one_writing):
            raise DataError(
                f"'{other}' and '{path}' both hold split {split} (two configurations or revisions of the data?): "
                "give the folder of one of them, or what belongs together one folder and one name"
            )


def part_of(path: Path) -> Part | None:
    """Which part of how many a file is, by its name; None where that does not say.

    >>> part_of(Path("data/train-00001-of-00005-1f2a.parquet"))
    ('train', 1, 5)
    """
    found = _SHARD.search(path.name)
    return (path.name[: found.start()], int(found[1]), int(found[2])) if found else None


def _is_one_writing(paths: list[Path]) -> bool:
    """Whether the files are parts of one whole wherever they lie: configurations would have the same numbers."""
    parts = [part for path in paths if (part := part_of(path))]
    same = len(parts) == len(paths) and len({(name, count) for name, _, count in parts}) == 1
    return same and len(set(parts)) == len(parts)


def _words(name: str) -> tuple[list[str], dict[int, str]]:
    """A name's words in small letters, and which of them name which split."""
    places: dict[int, str] = {}
    words: list[str] = []
    for pattern in (_WORD, _LETTERS):  # TRAINset is one word only where case is no border
        if not places:
            words = [word.lower() for word in pattern.findall(name)]
            found = ((place, _SPLIT.fullmatch(word)) for place, word in enumerate(words))
            places = {place: str(match.lastgroup) for place, match in found if match}
    return words, places
