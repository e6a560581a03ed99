"""The settings that the comparisons of pipelines can run in: the paper's three, and one for two cores."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from contest import Setting

PRESETS = ("small", "paper-cifar10", "paper-tinyimagenet", "paper-imagenet")
PRECISIONS = ("fp32", "bf16")


def setting_options(parser: ArgumentParser) -> None:
    """`--preset`, and what the paper's need beside it."""
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--model", help="for small: cifar-resnet20 (default) or cifar-resnet56")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="for small: number type of arithmetic")
    parser.add_argument("--weights", type=Path, help="trained weights, for the paper's presets")
    parser.add_argument("--data", help="dataset, where the preset's own is not in the default place")
    tuned_in_option(parser)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.6, 0.7, 0.8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])


def tuned_in_option(parser: ArgumentParser) -> None:
    """`--tuned-in`, for who cannot wait for a search of every network."""
    parser.add_argument("--tuned-in", default="", help="setting whose searches stand for those that this one lacks")


def setting_of(options: Namespace) -> Setting:
    """What the options name."""
    if options.preset == "small":
        model = options.model or "cifar-resnet20"
        return small(options.shared, model, precision=options.precision, tuned_in=options.tuned_in)
    words = ["--preset", options.preset]
    for option in ("model", "weights", "data"):
        if getattr(options, option) is not None:
            words += [f"--{option}", str(getattr(options, option))]
    # The score is of images by which nothing is decided, and no pipeline has epochs that the others have not.
    words += ["--decide-on", "holdout"]
    return Setting(options.preset, tuple(words), tuned_in=options.tuned_in, published=("--final.epochs", "0"))


def small(
    shared: Path,
    model: str = "cifar-resnet20",
    train_share: float = 0.1,
    precision: str = PRECISIONS[0],
    tuned_in: str = "",
) -> Setting:
    """5,000 stratified CIFAR-10 training images, one epoch a fine-tune; 2,000 images of one half of the test split
    decide, the other half reports. Searches: as many of the training images, in batches as large, as the pipeline's
    trials have without being asked (1,000 in batches of 32, or 5,000 in those of the replay), 1,000 deciding.
    """
    data = shared / "datasets" / "cifar10-jpeg"
    weights = shared / "weights" / f"{model.removeprefix('cifar-')}_cifar10jpeg.safetensors"
    words = f"--model {model} --precision {precision} --batch-size 128 --replay.subsample {train_share}"
    words += " --search.eval-images 1000 --search.objective auto"
    places = ("--weights", str(weights), "--data", f"cifar10:{data}")
    name = f"small-{model.removeprefix('cifar-')}" + ("" if train_share == 0.1 else f"-{train_share:g}")
    name += "" if precision == PRECISIONS[0] else f"-{precision}"
    published = ("--space", "paper-cifar10", "--search.subsample", "0.02")
    return Setting(name, (*words.split(), *places), 2000, tuned_in, published)
