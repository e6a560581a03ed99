"""Repaired steps against fine-tuned ones: ICE as published, with repairs, one-shot pruning, and no training at all.

    python benchmarks/repaired.py [--model cifar-resnet56] [--train-share 1.0] [--ratios 0.6 0.7 0.8] [--seeds 0 1 2]

(or `--threads 1 --part 0/2` and `--part 1/2` side by side, then once more without `--part` for the page; `--page`
writes it from what has been run so far)

The rules. Every row has the same data, model, surgery, batch, teacher, clock and evaluation. Hyperparameters are
searched once per row and ratio, with seed 0, by validation images. `ice` is ICE-Pruning as published (by l1, nothing
repaired), on six points of the paper's grid; with repairs (`ice + ...`) it keeps that choice, so that the repair alone
is the difference. The score is of the last epoch, on images by which nothing has been decided. Time is PT: choosing
filters, removing, repairing, deciding, fine-tuning and the final retraining. `reconstruction, up to four epochs` is
`--pipeline ice` as it is by default, with theta never and four epochs at the end or none; `sixteen epochs` takes longer
for it. `reconstruction, N images` never trains the network as a whole, with N calibration images in place of 2,000 (`by
l1`: filters chosen by that; `quarter epoch` and `one epoch`: 1,000 and then that much training, where there are many
images for it); `no training, N images` is the same by least squares alone. The other rows by least squares have 1,000
of them: `one retraining` trains four epochs at the end, `half an epoch` half of one at a rate that is searched, `least
squares, retrained` as long as its search says, up to eight, and `least squares with a threshold` may fine-tune between
steps too; their trials took batches of 32 on as many images as the replay has in batches of 128, which may leave their
rates too small (`up to four epochs` and `one-shot + LLR` were searched with the replay's batch). What has nothing to
search has the run itself on the search's images for a search. In fp32, on ResNet-56, and with all training images, some
hyperparameters are those that ResNet-20's searches found (`--tuned-in`): the last table says which. Seconds are the
processor's, with a process on each of its two cores; some rows, in fp32 most, had a third beside them. The rows in bf16
are of processors that have instructions for it, those in fp32 of one that has not: seconds compare within a section,
and in fp32 on ResNet-20 roughly: 1,000 images at 60 and 80% and most seeds of the baseline ran on a day when the
machine was slower (the baseline took 283 to 306 s on the day of the other rows, up to 382 s on that one). In bf16 the
rows of always fine-tuning, of `ice` and of least squares ran on an earlier day than the others, on a machine as fast
(run on both: `one-shot + LLR` at 60% in 48.4 and 48.7 s, `no training, 500 images` at 70% in 6.7 and 6.6). At 60%
ResNet-56's baseline in bf16 has the rate that a search in fp32 found, on another machine, which took those seconds.
The rows were run before `ice` repaired by default, when a theta of 100 stood for never and `up to four epochs` was a
pipeline named `ice-plus`.
"""

from __future__ import annotations

import itertools

import torch
from claims import of_repairs
from common import Ledger, arguments, share
from contest import ICE, STEADY, Contestant, run_contest
from contest_page import cells_of, page_option, write_results
from settings import PRECISIONS, small, tuned_in_option

_BY_DEFAULT = ("--pipeline", "ice", "--search.objective", "nearly-best")
_CLOSED_FORM = ("--pipeline", "ice", "--search.batch-size", "32", "--repair", "least-squares")
_IMAGES, NO_TRAINING = "--calibration-images", "no-training"
MODELS = ("cifar-resnet20", "cifar-resnet56")


def _space(name: str) -> tuple[str, str]:
    return "--space", name if name == NO_TRAINING else f"benchmarks/spaces/{name}.yaml"


def _reconstructed(name: str, images: int, space: str, *options: str) -> Contestant:
    return Contestant(f"reconstruction, {name}", (*_BY_DEFAULT, _IMAGES, str(images), *_space(space), *options))


def _least_squares(name: str, images: int, space: str, *options: str) -> Contestant:
    return Contestant(name, (*_CLOSED_FORM, _IMAGES, str(images), *_space(space), *options))


CONTESTANTS = (
    Contestant("baseline", ("--pipeline", "baseline")),
    ICE,
    Contestant("ice + bn", (*ICE.options, "--repair", "bn"), "ice", is_published=True),
    Contestant("ice + least squares", (*ICE.options, "--repair", "least-squares"), "ice", is_published=True),
    Contestant("one-shot + LLR", ("--pipeline", "one-shot")),
    _reconstructed("up to four epochs", 2000, "up-to-four-epochs"),
    *(_reconstructed(f"{images} images", images, NO_TRAINING) for images in (150, 250, 400, 500, 1000)),
    _reconstructed("200 images by l1", 200, NO_TRAINING, "--criterion", "l1"),
    _reconstructed("quarter epoch", 1000, "quarter-epoch"),
    _reconstructed("one epoch", 1000, "one-epoch"),
    _reconstructed("sixteen epochs", 2000, "sixteen-epochs"),
    *(_least_squares(f"no training, {images} images", images, NO_TRAINING) for images in (250, 400, 500, 1000, 2000)),
    STEADY,
    _least_squares("one retraining", 1000, "one-retraining"),
    _least_squares("half an epoch", 1000, "half-epoch"),
    _least_squares("least squares, retrained", 1000, "retrained"),
    _least_squares("least squares with a threshold", 1000, "with-threshold", "--search.trials", "6"),
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
    title = "Repaired steps against fine-tuned ones"
    write_results("repaired", title, rules, [(name, cells) for name, cells in found if cells], "baseline", of_repairs)


if __name__ == "__main__":
    main()
