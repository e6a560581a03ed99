"""Data that are no images, no labels or no parquet."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bad_input import PROBE, BadInput, Case, cut, garbage
from bad_weights import Runs
from layouts import encoded, pixels
from PIL import Image

IMAGES = pixels(6, 8, 8)
LABELS = [0, 1, 0, 1, 0, 1]


@cache
def jpeg() -> bytes:
    return encoded(pixels(1, 40, 40)[0], "JPEG")


def broken_image(case: Case) -> BadInput:
    """The first image of a folder or of a parquet file; or all of them, where broken ones are to be skipped."""
    chance = case.random
    skip = ["--data-errors", "skip"] if chance.random() < 0.3 else []
    content = _broken(case)
    if chance.random() < 0.5:
        for name in ("a", "b"):
            case.file(f"d/train/{name}/0.jpg", content)
            case.file(f"d/train/{name}/1.jpg", content if skip else jpeg())
            case.file(f"d/test/{name}/0.jpg", jpeg())
        return case.prune("--data", f"imagefolder:{case.folder / 'd'}", "--image-size", 16, *_weights(case), *skip)
    good = [encoded(image) for image in IMAGES]
    rows = [content] * len(good) if skip else [content, *good[1:]]
    _write(case, "train", {"image": rows, "label": LABELS})
    _write(case, "test", {"image": good, "label": LABELS})
    return case.prune("--data", f"parquet:{case.folder / 'd'}", *_weights(case), *skip)


def wrong_schema(case: Case) -> BadInput:
    chance = case.random
    images = [encoded(image) for image in IMAGES]
    other = chance.choice([[0.5] * 6, ["ant"] * 6, [None] * 6, [0, 1, None, 0, 1, 0], [[1]] * 6, [True] * 6])
    columns = chance.choice(
        [
            {"image": images},
            {"label": LABELS},
            {"picture": images, "label": LABELS},
            {"image": images, "class": LABELS},
            {"image": images, "label": other},
            {"image": [image.tolist() for image in IMAGES], "label": LABELS},
            {"image": ["a.jpg"] * 6, "label": LABELS},
            {"image": [{"path": "a.jpg"}] * 6, "label": LABELS},
            {"image": [{"bytes": "text"}] * 6, "label": LABELS},
            {"image": images, "label": [-1, *LABELS[1:]]},
            {"image": images, "label": [10**12, *LABELS[1:]]},
            {"image": images, "label": [2**62] * 6},
            {"image": [], "label": pa.array([], pa.int64())},
            {},
        ]
    )
    _write(case, "train", columns)
    return case.prune("--data", f"parquet:{case.folder / 'd'}", *_weights(case))


def unknown_range(case: Case) -> BadInput:
    """Pixels of which nobody can say what is white."""
    chance, values = case.random, IMAGES[0][..., 0]
    kinds = [(np.float32, "TIFF"), (np.int32, "TIFF"), (np.float32, "PPM")]
    kind, form = chance.choice(kinds)
    buffer = io.BytesIO()
    Image.fromarray(values.astype(kind) / kind(chance.choice([1, 255]))).save(buffer, form)
    rows = [buffer.getvalue()] * 6
    _write(case, "train", {"image": rows, "label": LABELS})
    _write(case, "test", {"image": [encoded(image) for image in IMAGES], "label": LABELS})
    skip = chance.choice([[], ["--data-errors", "skip"]])
    return case.prune("--data", f"parquet:{case.folder / 'd'}", *_weights(case), *skip)


def several_sets(case: Case) -> BadInput:
    """Files that hold one split twice, or name two at once, or do not agree on the classes."""
    chance, good = case.random, {"image": [encoded(image) for image in IMAGES], "label": LABELS}
    table = pa.table(good)
    names = chance.choice(
        [("a/train", "b/train"), ("train", "training"), ("x-train", "y-train"), ("train", "valid_train_map"),
         ("snapshots/1/train/0", "snapshots/2/train/0"), ("train-0-of-1", "train-0-of-2"), ("train", "split=train/0"),
         ("train", "test")]
    )  # fmt: skip
    for number, name in enumerate(names):
        classes = ["ant", "bee"] if number else ["ant", "cow"]
        metadata = {"huggingface": json.dumps({"info": {"features": {"label": {"names": classes}}}})}
        file = case.folder / "d" / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.replace_schema_metadata(metadata), file)
    return case.prune("--data", f"parquet:{case.folder / 'd'}", *_weights(case))


def no_parquet(case: Case) -> BadInput:
    chance = case.random
    _write(case, "train", {"image": [encoded(image) for image in IMAGES], "label": LABELS})
    whole = (case.folder / "d" / "train.parquet").read_bytes()
    spoilt = chance.choice(
        [cut(chance, whole), garbage(chance, 300), b"PAR1" + garbage(chance, 80) + b"PAR1", b"", b"PAR1"]
    )
    case.file("d/train.parquet", spoilt)
    return case.prune("--data", f"parquet:{case.folder / 'd'}", *_weights(case))


def hostile_parquet(case: Case) -> BadInput:
    """Extension types whose metadata, or values, are pickles that Ray or pyarrow could be made to read."""
    chance = case.random
    payload = pickle.dumps(Runs(open, str(case.folder / PROBE), "w"))
    name = chance.choice(
        ["ray.data.arrow_tensor", "ray.data.arrow_tensor_v2", "ray.data.arrow_variable_shaped_tensor",
         "ray.data.arrow_pickled_object", "arrow.py_extension_type"]
    )  # fmt: skip
    extension = {b"ARROW:extension:name": name.encode(), b"ARROW:extension:metadata": payload}
    images = pa.array([payload] * 6, chance.choice([pa.binary(), pa.large_binary()]))
    where = chance.choice(["image", "label", "other"])
    fields = [
        pa.field("image", images.type, metadata=extension if where == "image" else None),
        pa.field("label", pa.int64(), metadata=extension if where == "label" else None),
        pa.field("other", images.type, metadata=extension if where == "other" else None),
    ]
    huggingface = {b"huggingface": chance.choice([payload, json.dumps({"info": [1]}).encode()])}
    table = pa.table([images, pa.array(LABELS), images], schema=pa.schema(fields, metadata=huggingface))
    (case.folder / "d").mkdir()
    pq.write_table(table, case.folder / "d" / "train.parquet")
    return case.prune("--data", f"parquet:{case.folder / 'd'}", *_weights(case))


def no_cifar(case: Case) -> BadInput:
    """Binary and idx files of the wrong length, or whose heads lie."""
    chance = case.random
    kind = chance.choice(["cifar10", "cifar100", "fashionmnist"])
    names = {
        "cifar10": [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin", "batches.meta.txt"],
        "cifar100": ["train.bin", "test.bin", "fine_label_names.txt"],
        "fashionmnist": [f"{s}-{w}-ubyte" for s in ("train", "t10k") for w in ("images-idx3", "labels-idx1")],
    }[kind]
    for name in names:
        case.file(f"d/{name}", garbage(chance, chance.randint(0, 5000)))
    return case.prune("--data", f"{kind}:{case.folder / 'd'}", *_weights(case))


KINDS: dict[Callable[[Case], BadInput], int] = {
    broken_image: 60,
    wrong_schema: 50,
    unknown_range: 12,
    several_sets: 16,
    no_parquet: 40,
    hostile_parquet: 25,
    no_cifar: 30,
}


def _weights(case: Case) -> list[object]:
    """The user's own model needs no weights: the data are looked at first."""
    return ["--model", "own_code.model:build"]


def _write(case: Case, split: str, columns: dict[str, object]) -> None:
    (case.folder / "d").mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), case.folder / "d" / f"{split}.parquet")


def _broken(case: Case) -> bytes:
    chance, whole = case.random, jpeg()
    return chance.choice(
        [
            cut(chance, whole[:-40]),
            garbage(chance, chance.randint(0, 2000)),
            whole[:2] + garbage(chance, 400),
            b"\xff\xd8\xff\xe0",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"GIF89a" + garbage(chance, 20),
            b"\x89PNG\r\n\x1a\n" + garbage(chance, 200),
            _bomb(),
        ]
    )


@cache
def _bomb() -> bytes:
    """A PNG whose head promises 60,000 x 60,000 pixels."""
    buffer = io.BytesIO(encoded(np.zeros((1, 1, 3), np.uint8)))
    content = bytearray(buffer.getvalue())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    return bytes(content)
