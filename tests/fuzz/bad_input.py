"""What a bad input is, and words and numbers that are almost right."""

from __future__ import annotations

import dataclasses
import random
import string
from dataclasses import dataclass
from pathlib import Path

PROBE = "probe-was-run"


@dataclass(frozen=True)
class BadInput:
    """What is handed to a job.

    Attributes:
        job: whose command line it is: prune, replay or inspect; or load, for `ice_ray.load_pruned`.
        arguments: of the command line; for load the folder.
    """

    job: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """Where one input is made: random choices that a seed repeats, and an empty folder."""

    random: random.Random
    folder: Path

    def file(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def prune(self, *arguments: object) -> BadInput:
        return BadInput("prune", tuple(map(str, arguments)))

    def within(self, name: str) -> Case:
        """The same choices, in a folder of this one."""
        return dataclasses.replace(self, folder=self.folder / name)


def misspelt(chance: random.Random, word: str) -> str:
    """Almost that word."""
    letters = list(word)
    place = chance.randrange(len(letters))
    change = chance.choice(["drop", "double", "other", "swap", "append", "odd"])
    if change == "drop" and len(letters) > 1:
        del letters[place]
    elif change == "double":
        letters.insert(place, letters[place])
    elif change == "swap":
        letters[place : place + 2] = reversed(letters[place : place + 2])
    elif change == "append":
        letters += chance.choices(string.ascii_lowercase, k=chance.randint(1, 8))
    elif change == "odd":
        letters.insert(place, chance.choice(["\n", "\x1b[31m", "é", " ", "\t", "'", '"', "\u202e", "%s", "{}", "\x07"]))
    else:
        letters[place] = chance.choice(string.ascii_lowercase + string.digits)
    return "".join(letters)


def garbage(chance: random.Random, length: int) -> bytes:
    return chance.randbytes(length)


def cut(chance: random.Random, content: bytes) -> bytes:
    """Only its beginning."""
    return content[: chance.randrange(len(content))]
