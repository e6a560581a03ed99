"""Tables for terminals, logs and notebooks."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.table import Table

from ice_ray.observe.outcome import outcome_rows

LOG_WIDTH = 120
# What is shown is text, whatever brackets or colons a name has in it.
AS_IT_IS: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "soft_wrap": True}


def as_text(table: Table, width: int = LOG_WIDTH) -> str:
    """A table as lines of text without colours."""
    text = io.StringIO()
    # In a notebook rich would show it by itself, whatever file it is given.
    Console(file=text, width=width, color_system=None, force_jupyter=False, **AS_IT_IS).print(table)
    return text.getvalue()


def as_html(table: Table) -> str:
    """A table as HTML, every cell escaped; numbers stand on the right as in the text.

    >>> table = Table("layer", title="&")
    >>> table.add_row("<1>")
    >>> print(as_html(table))
    <table><caption>&amp;</caption><tr><th>layer</th></tr><tr><td style="text-align:left">&lt;1&gt;</td></tr></table>
    """
    caption = Markup("<caption>{}</caption>").format(table.title) if table.title else ""
    heads = Markup("").join(Markup("<th>{}</th>").format(column.header) for column in table.columns)
    columns = [[(column.justify, cell) for cell in column.cells] for column in table.columns]
    rows = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(Markup('<td style="text-align:{}">{}</td>').format(*cell) for cell in cells)
        )
        for cells in zip(*columns, strict=True)
    )
    return str(Markup("<table>{}<tr>{}</tr>{}</table>").format(caption, heads, rows))


def outcome_table(dense: Mapping[str, Any], pruned: Mapping[str, Any], title: str) -> Table:
    """Dense against pruned, as an assessment gives them."""
    table = Table(title=title, title_justify="left")
    for column in ("", "dense", "pruned", "change"):
        table.add_column(column, justify="left" if not column else "right")
    for row in outcome_rows(dense, pruned):
        before, after = (
            f"{value} ({spread})" if spread else value
            for value, spread in ((row.dense, row.dense_spread), (row.pruned, row.pruned_spread))
        )
        table.add_row(row.label, before, after, row.change)
    return table
