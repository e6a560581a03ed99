"""ICE-Pruning without its parts (the paper's Table II): no threshold, no freezing, no scheduler, and combinations.

    python benchmarks/ablation.py [--preset small|paper-cifar10|paper-tinyimagenet|paper-imagenet] [--seeds 0 1 2]

(or `--threads 1 --part 0/2` and `--part 1/2` side by side, then once more without `--part` for the page)

The rules. Every row has ICE's own hyperparameters, searched once per ratio with seed 0 by decision images on six points
of the paper's grid, so that the part left out is the only difference: without the threshold every step fine-tunes,
without freezing every layer trains and nothing is probed, without the scheduler every fine-tune is at the base learning
rate. Same data, model, surgery, batch, epochs, teacher, clock and evaluation. The score is of the last epoch, on images
by which nothing has been decided; the whole test split stands beside it. Time is PT, with the probe and the search
beside it. Rows of the full pipeline are those of `compare.py`, which are not run twice.
"""

from __future__ import annotations

import itertools

import torch
from common import Ledger, arguments, share
from contest import Contestant, run_contest
from contest_page import cells_of, write_results
from settings import setting_of, setting_options

ICE = ("--pipeline", "ice", "--search.trials", "6")
PARTS = ("threshold", "freezing", "scheduler")
ABLATED = tuple(
    Contestant("ice, no " + ", no ".join(without), (*ICE, *(f"--no-{part}" for part in without)), tuned_as="ice")
    for count in (1, 2, 3)
    for without in itertools.combinations(PARTS, count)
)
CONTESTANTS = (Contestant("ice", ICE), *ABLATED)


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__, parts=True)
    setting_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    part, suffix = share(options.part)
    ledger = Ledger(options.work, "contest", suffix)
    setting = setting_of(options)
    run_contest(setting, CONTESTANTS, options.ratios, options.seeds, ledger, part)
    if suffix:
        return
    cells = cells_of(setting, CONTESTANTS, options.ratios, options.seeds, ledger)
    rules = (__doc__ or "").split("The rules. ", 1)[1].strip()
    write_results(f"ablation-{setting.name}", "ICE-Pruning without its parts", rules, [(setting.name, cells)], "ice")


if __name__ == "__main__":
    main()
