"""A bar that shows how far something is, where somebody looks."""

from __future__ import annotations

import sys
import warnings
from typing import Any


def progress_bar(total: int | None, what: str, unit: str, shown: bool | None, delay: float = 0.0) -> Any:
    """A bar of tqdm's: of widgets in a notebook that has them, else of text on standard error.

    Args:
        total: where it is known.
        shown: whether it is shown. [default: in a notebook, and where standard error is a terminal]
        delay: seconds before it appears; what takes less shows none.
    """
    if shown is None:
        # In a notebook standard error is no terminal, and yet it is read.
        shown = "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a notebook without ipywidgets gets a bar of text
        from tqdm.auto import tqdm
    return tqdm(total=total, desc=what, unit=unit, mininterval=0 if not delay else 0.1, delay=delay, disable=not shown)
