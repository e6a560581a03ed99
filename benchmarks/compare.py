"""Pipelines compared on one engine (the paper's Table III): ICE, the baseline, AAP and IMP.

    python benchmarks/compare.py [--preset small|paper-cifar10|paper-tinyimagenet|paper-imagenet] [--seeds 0 1 2]

(or `--threads 1 --part 0/2` and `--part 1/2` side by side, then once more without `--part` for the page; `--page`
writes it from what has been run so far)

The rules. Every pipeline has the same data, model, surgery, batch, epochs a round (one; IMP's are searched), teacher,
clock and evaluation; the decisions differ, and with IMP the schedule. Hyperparameters are searched once per pipeline
and ratio, with seed 0, by validation images: ICE's on six points of the paper's grid, as the paper does, the others' on
at most six of their own (ResNet-56's pipelines, but for ICE, have what ResNet-20's searches found, `--tuned-in`; its
baseline the rate of a search in fp32 on another machine). The score is of the last epoch, on images by which nothing
has been decided; the whole test split stands beside it for comparison with published figures, though half of it has
decided. Time is PT, with the probe, the search and their sum beside it. A ratio is a share of filters in ICE, the
baseline and IMP (ranked over all layers), and an upper bound of the parameters in AAP (where it never comes to one, a
larger one is the same run, and not repeated): compare by the parameters and multiply-adds reached. AAP has 30 rounds at
most, and filters go for real in every round, which makes it faster than the published program, which masks. IMP's
trials took batches of 32 on as many images as the replay has in batches of 128, which may leave its rates too small.
IMP retrains with LLR, which `retraining.py` finds best by validation images at the last step (60%, two seeds), and once
with learning-rate rewinding; the others' rates are constant inside a fine-tune, as published. Where the search chose
the baseline another rate than 0.005 that does worse on the benchmark's images, `baseline, rate 0.005` stands beside it.
"""

from __future__ import annotations

from claims import against_rivals
from contest import ICE, STEADY, Contestant
from contest_job import contest_job

CONTESTANTS = (
    Contestant("baseline", ("--pipeline", "baseline")),
    ICE,
    Contestant("aap", ("--pipeline", "aap", "--search.trials", "6")),
    Contestant("imp", ("--pipeline", "imp", "--search.trials", "6")),
    Contestant("imp, rewinding", ("--pipeline", "imp", "--search.trials", "6", "--imp.schedule", "lrw")),
    STEADY,
)


if __name__ == "__main__":
    contest_job(__doc__, "compare", "Pipelines compared", CONTESTANTS, "baseline", against_rivals)
