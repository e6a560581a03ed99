"""How a number of things is written."""

from __future__ import annotations


def counted(count: float, what: str) -> str:
    """A number and what there is so much of, in the plural unless it is one.

    >>> [counted(count, "epoch") for count in (1, 1.0, 0.5, 0, 1250000)]
    ['1 epoch', '1 epoch', '0.5 epochs', '0 epochs', '1250000 epochs']
    >>> counted(2, "pass"), counted(1, "freezing probe")
    ('2 passes', '1 freezing probe')
    """
    number = str(count) if isinstance(count, int) else f"{count:g}"
    return f"{number} {what if count == 1 else plural(what)}"


def plural(what: str) -> str:
    """Of a noun, or of words that end in one."""
    return f"{what}es" if what.endswith("s") else f"{what}s"
