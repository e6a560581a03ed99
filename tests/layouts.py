"""Small data in the layouts in which the datasets are published: real files, few classes, few images."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

WNIDS = ("n01443537", "n02123045", "n07753592")
WORDS = {"n01443537": "goldfish, Carassius auratus", "n02123045": "tabby, tabby cat", "n07753592": "banana"}
JUNK = b"no image at all"


def pixels(count: int, height: int = 64, width: int = 64, seed: int = 0) -> np.ndarray:
    """uint8 (N, H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, "JPEG")


def write_cifar(
    root: Path, files: dict[str, list[int]], names_file: str, names: list[str], coarse: bytes = b""
) -> np.ndarray:
    """Binary CIFAR: each row the coarse label's byte where there is one, the label's, three colour planes.

    Args:
        files: labels of the rows of each file.

    Returns:
        The images of all files, in the order of `files`.
    """
    root.mkdir(parents=True, exist_ok=True)
    images = pixels(sum(map(len, files.values())), 32, 32)
    left = iter(images)
    for name, labels in files.items():
        rows = [coarse + bytes([label]) + next(left).transpose(2, 0, 1).tobytes() for label in labels]
        (root / name).write_bytes(b"".join(rows))
    (root / names_file).write_text("\n".join([*names, ""]))
    return images


def write_idx(path: Path, values: np.ndarray) -> None:
    """An idx file of unsigned bytes: two zeros, type 8, dimensions, sizes in big-endian, values. Packed if `.gz`."""
    content = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_fashionmnist(root: Path, suffix: str = "") -> dict[str, np.ndarray]:
    """Ten training images, one a class, and five others; returns the grey images (N, 28, 28)."""
    images = {"train": pixels(10, 28, 28)[..., 0], "test": pixels(5, 28, 28, seed=1)[..., 0]}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        write_idx(root / f"{prefix}-images-idx3-ubyte{suffix}", images[split])
        write_idx(root / f"{prefix}-labels-idx1-ubyte{suffix}", np.arange(len(images[split]), dtype=np.uint8))
    return images


def write_tinyimagenet(root: Path, train: int = 4, val: int = 2) -> None:
    """`train` and `val` images of each class. Validation images are in turn of the last class to the first."""
    for label, wnid in enumerate(WNIDS):
        for number, image in enumerate(pixels(train, seed=label)):
            write_image(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", image)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t9\t9\n")
    lines = []
    for number, image in enumerate(pixels(val * len(WNIDS), seed=9)):
        write_image(root / "val" / "images" / f"val_{number}.JPEG", image)
        lines.append(f"val_{number}.JPEG\t{WNIDS[-1 - number % len(WNIDS)]}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    write_image(root / "test" / "images" / "test_0.JPEG", pixels(1)[0])
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in reversed(WNIDS)))
    words = {"n00001740": "entity"} | WORDS
    (root / "words.txt").write_text("".join(f"{wnid}\t{meaning}\n" for wnid, meaning in words.items()))


def write_folders(root: Path, splits: tuple[str, ...] = ("train", "val"), height: int = 40, width: int = 50) -> None:
    """Two images a class: split/WNID/ILSVRC2012_number.JPEG."""
    for split in splits:
        for label, wnid in enumerate(WNIDS):
            for number, image in enumerate(pixels(2, height, width, seed=label)):
                write_image(root / split / wnid / f"ILSVRC2012_{number}.JPEG", image)


def write_parquet(
    path: Path, labels: list[int], images: list[bytes] | None = None, *, label="label", image="image",
    structs: bool = False, metadata: dict[str, str] | None = None, **options: int,
) -> None:  # fmt: skip
    """One parquet file of PNG images (of 5 x 7 pixels, unless given), options as `pyarrow` takes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content: list = [encoded(each) for each in pixels(len(labels), 5, 7)] if images is None else images
    if structs:
        content = [{"bytes": each, "path": None} for each in content]
    table = pa.table({image: content, label: labels})
    pq.write_table(table.replace_schema_metadata(metadata or {}), path, **options)
