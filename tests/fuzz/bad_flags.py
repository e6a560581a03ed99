"""Command lines that are wrong in one word."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_input import BadInput, Case, misspelt

from ice_ray.config.preset import named_presets
from ice_ray.config.run import RunConfig
from ice_ray.ingest.datasets import DATASETS
from ice_ray.models.registry import BUILDERS
from ice_ray.pipelines.ice import IceConfig
from ice_ray.pipelines.registry import PIPELINES
from ice_ray.pruning.criteria import CRITERIA
from ice_ray.trials.space import named_spaces

NO_INTEGER = [
    "x",
    "1.5",
    "",
    " ",
    "1e3",
    "nan",
    "0x1F",
    "1,000",
    "∞",
    "one",
    "--",
    "1 2",
    "True",
    "None!",
    "1\n\n"[:1] + "z",
]
NO_NUMBER = ["half", "", " ", "1,5", "1.2.3", "50%", "1/2", "--1", "O.5", "1e", "True", "½ "]
NAMES = {
    "--model": [*BUILDERS, "torchvision:resnet18", "timm:resnet18"],
    "--data": list(DATASETS),
    "--criterion": list(CRITERIA),
    "--pipeline": list(PIPELINES),
    "--space": named_spaces(),
    "--preset": named_presets(),
    "--search.objective": ["auto", "eq2", "nearly-best", "pareto"],
    "--target": ["macs=0.5", "params=0.5"],
}
# Numbers below zero are some other option's business: a seed may be any number, a margin may be negative.
MAY_BE_NEGATIVE = {"--seed", "--early-stopping.margin"}
FILES = {"--weights": ".pth", "--prune.ratios": ".yaml", "--search.warm-start": ".json", "--space": ".yaml"}


def options(kind: type[Any] = RunConfig, prefix: str = "--") -> dict[str, Any]:
    """The type of every option of ice."""
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind).items():
        if name == "options":
            found |= options(IceConfig)
            continue
        option = f"{prefix}{name.replace('_', '-')}"
        found |= options(hint, f"{option}.") if dataclasses.is_dataclass(hint) else {option: hint}
    return found


OPTIONS = options()


def kinds_of(hint: Any) -> tuple[Any, ...]:
    """A hint's alternatives, without None."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return tuple(each for each in typing.get_args(hint) if each is not type(None)) if union else (hint,)


def taking(*wanted: Any) -> list[str]:
    return [option for option, hint in OPTIONS.items() if set(kinds_of(hint)) & set(wanted)]


def wrong_number(case: Case) -> BadInput:
    option = case.random.choice(taking(int, float))
    words = NO_INTEGER if option in taking(int) else NO_NUMBER
    return case.prune(option, case.random.choice(words))


def out_of_range(case: Case) -> BadInput:
    chance = case.random
    option = chance.choice([option for option in taking(int, float) if option not in MAY_BE_NEGATIVE])
    if option in taking(int):
        value = str(-chance.randint(1, 10 ** chance.randint(1, 25)))
    else:
        value = chance.choice(["nan", "-inf", "-1e-300", "-1e300", str(-chance.random() - 1e-3), "inf"])
        if value == "inf" and option.startswith("--search.store"):
            value = "nan"  # as much as there is room for is an answer
    return case.prune(f"{option}={value}")


def far_too_much(case: Case) -> BadInput:
    """Numbers that no machine could serve must be refused, not tried."""
    chance = case.random
    size = 10 ** chance.randint(9, 25)
    return chance.choice(
        [
            case.prune("--search.algorithm", "random", "--search.trials", size),
            case.prune("--search.trials", size),
            case.prune("--image-size", size, "--data", "imagefolder:photos"),
            BadInput("inspect", ("--model", "cifar-resnet8", "--image-size", str(size))),
            BadInput("inspect", ("--model", "cifar-resnet8", "--num-classes", str(size))),
        ]
    )


def no_such_choice(case: Case) -> BadInput:
    literals = [option for option, hint in OPTIONS.items() if typing.get_origin(kinds_of(hint)[0]) is typing.Literal]
    option = case.random.choice(literals)
    valid = typing.get_args(kinds_of(OPTIONS[option])[0])
    return case.prune(f"{option}={_other(case, valid)}")


def no_such_name(case: Case) -> BadInput:
    option = case.random.choice(list(NAMES))
    return case.prune(f"{option}={_other(case, NAMES[option])}")


def no_such_option(case: Case) -> BadInput:
    option = _other(case, [name.removeprefix("--") for name in OPTIONS])
    return case.prune(f"--{option}", "1")


def words_too_many_or_few(case: Case) -> BadInput:
    chance = case.random
    option = chance.choice([name for name, hint in OPTIONS.items() if hint is not bool])
    switch = chance.choice([name for name, hint in OPTIONS.items() if hint is bool])
    three = chance.choice(["--mean", "--std"])
    numbers = [str(round(chance.random(), 3)) for _ in range(chance.choice([1, 2, 4]))]
    return chance.choice(
        [
            case.prune(option),
            case.prune(f"{switch}={chance.choice(['maybe', '2', 'yes!'])}"),
            case.prune(chance.choice(["resnet", "0.5", "-x", "-1"]), "--seed", "1"),
            case.prune(three, *numbers),
        ]
    )


def no_such_file(case: Case) -> BadInput:
    chance = case.random
    option, ending = chance.choice(list(FILES.items()))
    name = chance.choice(["none", "no/such/folder/x", "a\nb", "x" * 300, "y" * 6000, "~/none", "%2e%2e", "\x1b[2Jx"])
    if option == "--weights" and chance.random() < 0.3:
        return case.prune(option, case.within("folder").file("x.txt", "").parent)  # a folder is no file
    return case.prune(option, case.folder / f"{name}{ending}")


def no_place_for_runs(case: Case) -> BadInput:
    chance = case.random
    name = chance.choice(["", ".", "..", "a/b", "/abs", ".hidden", "x" * 300, "a\nb", "../up", "\x1b[2J"])
    file = case.file("taken", "a file, not a folder")
    return chance.choice(
        [
            case.prune("--storage", case.folder / "s", f"--name={name}"),
            case.prune("--storage", file),
            case.prune("--storage", file / "below"),
            case.prune("--storage", chance.choice(["ftp://host/x", "s3:/bucket", "http://host/", "s3://", "gs:///x"])),
            case.prune(
                "--storage", chance.choice(["s3://k:s@bucket/x", "s3://b/../x", "s3://b/x?secret_key=s", "://x"])
            ),
            case.prune("--storage", case.folder, "--resume", "--name", "none"),
        ]
    )


def no_such_data(case: Case) -> BadInput:
    chance = case.random
    kind = chance.choice(["parquet", "imagefolder", "tinyimagenet", "imagenet", "cifar10", "cifar100", "fashionmnist"])
    place = chance.choice([case.folder / "none", case.folder / ("x" * 300), case.within("empty").file("t", "").parent])
    return case.prune("--data", f"{kind}:{place}")


def no_such_code(case: Case) -> BadInput:
    chance = case.random
    option = chance.choice(["--model", "--data", "--criterion", "--pipeline", "--search.objective"])
    return case.prune(
        option, chance.choice(["no_such:f", "json:nothing", "a.b.c:d", "os.path:sep", "a:b:c", ":f", "m:"])
    )


KINDS: dict[Callable[[Case], BadInput], int] = {
    wrong_number: 60,
    out_of_range: 70,
    far_too_much: 20,
    no_such_choice: 30,
    no_such_name: 50,
    no_such_option: 30,
    words_too_many_or_few: 30,
    no_such_file: 30,
    no_place_for_runs: 30,
    no_such_data: 30,
    no_such_code: 20,
}


def _other(case: Case, valid: Any) -> str:
    """Almost one of the words, and none of them."""
    while True:
        word = misspelt(case.random, case.random.choice(list(valid)))
        if word not in valid and word.strip() and Path(word).suffix not in (".yaml", ".yml"):
            return word
