"""ICE-Pruning without its parts (the paper's Table II): no threshold, no freezing, no scheduler, and combinations.

    python benchmarks/ablation.py [--preset small|paper-cifar10|paper-tinyimagenet|paper-imagenet] [--seeds 0 1 2]

(or `--threads 1 --part 0/2` and `--part 1/2` side by side, then once more without `--part` for the page)

The rules. Every row has ICE's own hyperparameters, searched once per ratio with seed 0 by validation images on six
points of the paper's grid, so that the part left out is the only difference: without the threshold every step
fine-tunes, without freezing every layer trains and nothing is probed, without the scheduler every fine-tune is at the
base learning rate. Where the threshold was reached at every step, the row without it is the same run and not repeated
(its measurements would see all images instead of some, which would make it a few seconds slower). Same data, model,
surgery, batch, epochs, teacher, clock and evaluation. The score is of the last epoch, on images by which nothing has
been decided; the whole test split stands beside it. Time is PT, with the probe and the search beside it. Rows of the
full pipeline are those of `compare.py`, which are not run twice.
"""

from __future__ import annotations

import itertools

from claims import of_parts
from contest import ICE, Contestant
from contest_job import contest_job

PARTS = ("threshold", "freezing", "scheduler")


def ablated(without: tuple[str, ...]) -> Contestant:
    """ICE without these parts."""
    name = ", no ".join((ICE.name, *without))
    twin = ", no ".join((ICE.name, *(part for part in without if part != "threshold")))
    options = (*ICE.options, *(f"--no-{part}" for part in without))
    return Contestant(name, options, ICE.name, twin if twin != name else "", is_published=True)


ABLATED = tuple(ablated(without) for count in (1, 2, 3) for without in itertools.combinations(PARTS, count))
CONTESTANTS = (ICE, *ABLATED)


if __name__ == "__main__":
    contest_job(__doc__, "ablation", "ICE-Pruning without its parts", CONTESTANTS, "ice", of_parts)
