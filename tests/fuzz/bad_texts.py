"""YAML that is no space, no ratios and no preset."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import yaml
from bad_input import PROBE, BadInput, Case, cut, garbage
from ice_runs import DIGITS

from ice_ray.trials.space import load_space

NO_NUMBERS = ["much", None, [], {}, [[1, 2]], {"least": 0}, True, [0.1, "0.2"], [0.1, None], "1e-2x", [False], -1e400]
OUT_OF_RANGE = {
    "accuracy_drop_threshold": [-1.0, float("nan"), float("inf")],
    "frozen_fraction": [1.5, -0.1, 30],
    "base_learning_rate": [0.0, -0.1, float("nan")],
    "learning_rate_reduction": [0.0, 10.0, -1e-3],
    "midpoint_pruned_share": [0.0, 0.9, 50],
    "steepness": [0.0, -5, float("-inf")],
}
NO_YAML = [b"{", b"a: [1", b"a: b: c", b"\t- x", b"&a [*a", b"? !!x\n: - :", b"'", b"%YAML 9\n--- @", b"{a: *nothing}"]


def valid_space() -> dict[str, Any]:
    return {name: list(values) for name, values in load_space(DIGITS).values.items()}


def no_space(case: Case) -> BadInput:
    return case.prune("--space", case.file("space.yaml", _spoilt_space(case)))


def no_ratios(case: Case) -> BadInput:
    chance = case.random
    ratios = chance.choice(
        [
            chance.choice(NO_YAML),
            _hostile(case),
            yaml.safe_dump(chance.choice([[0.5], "half", 3, None, {}, {"*": "half"}, {"*": [0.5]}, {"*": None}])),
            yaml.safe_dump({"layer1.*": chance.choice([1.0, 1.5, -0.5, float("nan"), float("inf"), True, {}])}),
            yaml.safe_dump({chance.choice(["layer9.*", "", "[", "conv9", "fc"]): 0.5}),
        ]
    )
    return case.prune("--prune.ratios", case.file("ratios.yaml", ratios))


def spoilt_preset(chance: random.Random) -> str:
    """The text of a preset that is none."""
    wrong: list[Any] = [
        {"modle": "m"},
        {"search": {"trails": 3}},
        {"search": chance.choice([3, [1], "x", None])},
        {chance.choice(["batch-size", "search", "prune", "mean", "ratio", "seed"]): {"x": chance.random()}},
        {chance.choice(["batch-size", "seed", "image-size", "verbose"]): chance.choice(["ten", 1.5, [1], "-"])},
        {"search": {chance.choice(["trials", "cpus", "clock"]): chance.choice(["x", [2], -3, {}])}},
        {"replay": {chance.choice(["workers", "subsample"]): chance.choice(["x", [2], -3, {}])}},
        {"prune": {chance.choice(["round-to", "ratios", "include"]): chance.choice([-1, [[2]], {}])}},
        {chance.choice(["precision", "augment", "decide-on", "alpha", "images"]): chance.choice(["x", 1, []])},
        {chance.choice(["mean", "std"]): chance.choice([[0.5], [0.5] * 4, "0.5", [0.1, "x", 0.1], [2, 2, 2]])},
        {chance.randint(0, 9): "x"},
        chance.choice([[], "text", 3, [{"model": "m"}]]),
    ]
    return yaml.safe_dump(chance.choice(wrong)) if chance.random() < 0.85 else chance.choice(NO_YAML).decode()


KINDS: dict[Callable[[Case], BadInput], int] = {no_space: 80, no_ratios: 40}


def _spoilt_space(case: Case) -> bytes | str:
    chance, space = case.random, valid_space()
    name = chance.choice([name for name in space if name in OUT_OF_RANGE])
    kind = chance.choice(["missing", "unknown", "no number", "range", "shape", "yaml", "bytes", "hostile", "huge"])
    if kind == "missing":
        del space[name]
    elif kind == "unknown":
        space[name + chance.choice(["s", "_", " x", "\x1b[31m"])] = space.pop(name)
    elif kind == "no number":
        space[name] = chance.choice(NO_NUMBERS)
    elif kind == "range":
        space[name] = [*space[name], chance.choice(OUT_OF_RANGE[name])]
    elif kind == "shape":
        return yaml.safe_dump(chance.choice([[space], name, 3.5, None, [[name, 1]], list(space)]))
    elif kind == "yaml":
        return chance.choice(NO_YAML)
    elif kind == "bytes":
        text = cut(chance, yaml.safe_dump(space).encode())
        return text + b"\n" + garbage(chance, chance.randint(1, 200))
    elif kind == "hostile":
        return _hostile(case)
    else:  # a grid that no machine could list
        return yaml.safe_dump(space | {"accuracy_drop_threshold": list(range(400)), "steepness": list(range(1, 400))})
    return yaml.safe_dump(space)


def _hostile(case: Case) -> str:
    """What an unsafe loader would run, and what would take all memory."""
    target = case.folder / PROBE
    bomb = "\n".join([f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(8)])
    return case.random.choice(
        [
            f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{target}']]",
            f"x: !!python/object/apply:os.system ['touch {target}']",
            f"!!python/object/new:open ['{target}', 'w']",
            f"a0: &a0 [x]\n{bomb}",
            "[" * 5000,
            "{a: " * 3000,
        ]
    )
