"""Repair without training first: ICE against ICE with closed-form repairs, one-shot pruning and `ice-plus`.

    python benchmarks/ice_plus.py [--model cifar-resnet56] [--train-share 1.0] [--ratios 0.6 0.7 0.8] [--seeds 0 1 2]

(or `--threads 1 --part 0/2` and `--part 1/2` side by side, then once more without `--part` for the page; `--page`
writes it from what has been run so far)

The rules. Every row has the same data, model, surgery, batch, teacher, clock and evaluation. Hyperparameters are
searched once per row and ratio, with seed 0, by validation images: ICE's on six points of the paper's grid, as the
paper does; with repairs it keeps ICE's own choice, so that the repair alone is the difference. The score is of the last
epoch, on images by which nothing has been decided. Time is PT: choosing filters, removing, repairing, deciding,
fine-tuning and the final retraining, of up to four epochs in one-shot and ice-plus (`ice-plus, sixteen epochs` takes
longer for it) and up to eight in `least squares, retrained`; the probe and the search stand beside it. `reconstruction,
N images` is `ice-plus` that never trains the network as a whole, with N calibration images in place of 2,000 (`by l1`:
filters chosen by that; `reconstruction, quarter epoch` and `one epoch`: 1,000 and then that much training, where there
are many images for it); `no training, N images` the same by least squares alone. The other rows by least squares have
1,000 of them: `one retraining` trains four epochs at the end, `half an epoch` half of one at a rate that is searched,
`least squares, retrained` as long as its search says, and `least squares with a threshold` may fine-tune between steps
too; their trials took batches of 32 on as many images as the replay has in batches of 128, which may leave their rates
too small (`ice-plus` and `one-shot + LLR` were searched with the replay's batch). What has nothing to search has the
run itself on the search's images for a search. In fp32, on ResNet-56, and with all training images, some
hyperparameters are those that ResNet-20's searches found (`--tuned-in`): the last table says which. Seconds are the
processor's, with a process on each of its two cores; some rows, in fp32 most, had a third beside them. The rows in bf16
are of processors that have instructions for it, those in fp32 of one that has not: seconds compare within a section,
and in fp32 on ResNet-20 roughly: 1,000 images at 60 and 80% and most seeds of the baseline ran on a day when the
machine was slower (the baseline took 283 to 306 s on the day of the other rows, up to 382 s on that one). In bf16 the
rows of always fine-tuning, of `ice` and of least squares ran on an earlier day than the others, on a machine as fast
(run on both: `one-shot + LLR` at 60% in 48.4 and 48.7 s, `no training, 500 images` at 70% in 6.7 and 6.6). At 60%
ResNet-56's baseline in bf16 has the rate that a search in fp32 found, on another machine, which took those seconds.
"""

from __future__ import annotations

import itertools

import torch
from claims import of_repairs
from common import Ledger, arguments, share
from contest import ICE, STEADY, Contestant, run_contest
from contest_page import cells_of, page_option, write_results
from settings import PRECISIONS, small, tuned_in_option

_WORDS = "--pipeline ice-plus --search.objective auto --search.batch-size 32 --repair least-squares"
IN_CLOSED_FORM = (*_WORDS.split(), "--prune.calibration-images")
NO_TRAINING, SPACES = "no-training", "benchmarks/spaces"
MODELS = ("cifar-resnet20", "cifar-resnet56")
CONTESTANTS = (
    Contestant("baseline", ("--pipeline", "baseline")),
    ICE,
    Contestant("ice + bn", (*ICE.options, "--repair", "bn"), "ice"),
    Contestant("ice + least squares", (*ICE.options, "--repair", "least-squares"), "ice"),
    Contestant("one-shot + LLR", ("--pipeline", "one-shot")),
    Contestant("ice-plus", ("--pipeline", "ice-plus")),
    *(
        Contestant(
            f"reconstruction, {images} images",
            ("--pipeline", "ice-plus", "--space", NO_TRAINING, "--prune.calibration-images", str(images)),
        )
        for images in (150, 250, 400, 500, 1000)
    ),
    Contestant(
        "reconstruction by l1, 200 images",
        ("--pipeline", "ice-plus", "--space", NO_TRAINING, "--criterion", "l1", "--prune.calibration-images", "200"),
    ),
    *(
        Contestant(
            f"reconstruction, {epochs.replace('-', ' ')}",
            ("--pipeline", "ice-plus", "--space", f"{SPACES}/{epochs}.yaml", "--prune.calibration-images", "1000"),
        )
        for epochs in ("quarter-epoch", "one-epoch")
    ),
    Contestant("ice-plus, sixteen epochs", ("--pipeline", "ice-plus", "--space", f"{SPACES}/sixteen-epochs.yaml")),
    *(
        Contestant(f"no training, {images} images", (*IN_CLOSED_FORM, str(images), "--space", NO_TRAINING))
        for images in (250, 400, 500, 1000, 2000)
    ),
    STEADY,
    Contestant("one retraining", (*IN_CLOSED_FORM, "1000", "--space", f"{SPACES}/one-retraining.yaml")),
    Contestant("half an epoch", (*IN_CLOSED_FORM, "1000", "--space", f"{SPACES}/half-epoch.yaml")),
    Contestant("least squares, retrained", (*IN_CLOSED_FORM, "1000", "--space", f"{SPACES}/retrained.yaml")),
    Contestant(
        "least squares with a threshold",
        (*IN_CLOSED_FORM, "1000", "--space", f"{SPACES}/with-threshold.yaml", "--search.trials", "6"),
    ),
)


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__, parts=True)
    page_option(parser)
    tuned_in_option(parser)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.6, 0.7, 0.8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0])
    parser.add_argument("--train-share", type=float, default=0.1, help="of the 50,000 training images")
    names = [own.name for own in CONTESTANTS]
    parser.add_argument("--rows", nargs="+", choices=names, default=names, metavar="NAME", help="only these pipelines")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    part, suffix = share(options.part)
    ledger = Ledger(options.work, "contest", suffix)
    setting = small(options.shared, options.model, options.train_share, options.precision, options.tuned_in)
    if not options.page:
        chosen = [own for own in CONTESTANTS if own.name in options.rows]
        run_contest(setting, chosen, options.ratios, options.seeds, ledger, part)
    if suffix:
        return
    ledger.keep()
    settings = [small(options.shared, *words) for words in itertools.product(MODELS, (0.1, 1.0), PRECISIONS)]
    found = [(own.name, cells_of(own, CONTESTANTS, (0.6, 0.7, 0.8), range(100), ledger)) for own in settings]
    rules = (__doc__ or "").split("The rules. ", 1)[1].strip()
    title = "Repair without training first"
    write_results("ice_plus", title, rules, [(name, cells) for name, cells in found if cells], "baseline", of_repairs)


if __name__ == "__main__":
    main()
