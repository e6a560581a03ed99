"""A comparison as a command: its options, what is missing of it, its page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from common import Ledger, arguments, share
from contest import Contestant, run_contest
from contest_page import Cell, cells_of, page_option, write_results
from settings import setting_of, setting_options


def contest_job(
    doc: str | None,
    name: str,
    title: str,
    contestants: Sequence[Contestant],
    baseline: str,
    claims: Callable[[Sequence[Cell]], str],
) -> None:
    """Run what is missing, and write the page unless this process does but a part.

    Args:
        doc: of the benchmark; its rules go to the page.
        name: of the page, before the setting's.
        baseline: the contestant whose time is the others' measure.
        claims: what the paper claims, beside the rows.
    """
    parser = arguments(doc, parts=True)
    setting_options(parser)
    page_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    part, suffix = share(options.part)
    ledger, setting = Ledger(options.work, "contest", suffix), setting_of(options)
    if not options.page:
        run_contest(setting, contestants, options.ratios, options.seeds, ledger, part)
    if not suffix:
        ledger.keep()
        cells = cells_of(setting, contestants, options.ratios, options.seeds, ledger)
        rules = (doc or "").split("The rules. ", 1)[1].strip()
        write_results(f"{name}-{setting.name}", title, rules, [(setting.name, cells)], baseline, claims)
