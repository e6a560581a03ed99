"""What the benchmarks share: data, the dense model, finished runs that are not redone, tables, the page's head."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from ice_ray import ImageSet, Preprocessing
from ice_ray.cluster.workload import device_name
from ice_ray.ingest.datasets import Dataset, open_dataset
from ice_ray.ingest.roles import Rows
from ice_ray.models.registry import ModelSpec
from ice_ray.models.weights import fit_weights, load_state_dict
from ice_ray.pipelines.ice import IceConfig

RESULTS = Path(__file__).parent / "results"
PREPROCESSING = Preprocessing(pad=4, flip=True)
PUBLISHED = IceConfig(0.6, criterion="l1", calibration_images=1000, repair="none", decision_error=0.0)
"""ICE-Pruning as the paper has it, at 60% of the filters."""
Row = dict[str, Any]


def arguments(description: str | None, parts: bool = False) -> argparse.ArgumentParser:
    """The options that every benchmark has, and `--part` where its runs can be shared by processes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with datasets/ and weights/")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"), help="folder of finished runs")
    parser.add_argument("--threads", type=int, default=2)
    if parts:
        parser.add_argument("--part", default="0/1", help="K/N: this process's share of the runs")
    return parser


def share(part: str) -> tuple[slice, str]:
    """Of the runs in their order, those of part K/N; and what this process's file of them is called after (nothing
    where it does them all, and only then is there a page to write)."""
    index, parts = map(int, part.split("/"))
    return slice(index, None, parts), f"-{index}-of-{parts}" if parts > 1 else ""


def cifar10(shared: Path) -> Dataset:
    """CIFAR-10 as JPEG."""
    return open_dataset(f"cifar10:{shared / 'datasets' / 'cifar10-jpeg'}")


def images(dataset: Dataset, rows: Rows) -> ImageSet:
    """The rows, decoded here."""
    pixels = [row.pixels for row in dataset.read(rows.split, rows.indices) if row.pixels is not None]
    return ImageSet.from_numpy(np.stack(pixels), dataset.labels[rows.split][rows.indices])


def dense_resnet20(shared: Path) -> nn.Module:
    """The trained ResNet-20 (87.7% on the test split)."""
    model = ModelSpec("cifar-resnet20", 10).build()
    fit_weights(model, load_state_dict(shared / "weights" / "resnet20_cifar10jpeg.safetensors"), "benchmark")
    return model


class Ledger:
    """Finished runs, a JSON line each, so that an interrupted benchmark goes on where it was.

    Args:
        work: folder of the ledgers.
        name: of the benchmark.
        part: names this process's own file where several share the work; every part's rows are read, and those of
            `results/NAME_rows.jsonl.gz`, where a benchmark that takes hours has been committed half-way.
    """

    def __init__(self, work: Path, name: str, part: str = "") -> None:
        work.mkdir(parents=True, exist_ok=True)
        self._path, self._kept = work / f"{name}{part}.jsonl", RESULTS / f"{name}_rows.jsonl.gz"
        texts = [gzip.decompress(self._kept.read_bytes()).decode()] if self._kept.exists() else []
        texts += [file.read_text() for file in sorted(work.glob(f"{name}*.jsonl"))]
        rows = [json.loads(line) for text in texts for line in text.splitlines()]
        self.rows: list[Row] = list({json.dumps(row["key"]): row for row in reversed(rows)}.values())[::-1]

    def once(self, key: Mapping[str, Any], run: Callable[[], Row]) -> Row:
        """The row of that key; run only where there is none yet."""
        found = next((row for row in self.rows if row["key"] == dict(key)), None)
        if found is None:
            found = {"key": dict(key), "machine": machine(), **run()}
            self.rows.append(found)
            with self._path.open("a") as file:
                file.write(json.dumps(found) + "\n")
            print(json.dumps({name: value for name, value in found.items() if name != "steps"}), flush=True)
        return found

    def keep(self) -> None:
        """Write all rows to where they can be committed, for who goes on with the benchmark on another machine."""
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        self._kept.write_bytes(gzip.compress(text.encode(), mtime=0))


def write_parquet(name: str, rows: Sequence[Row]) -> None:
    """`benchmarks/results/NAME.parquet`, the keys as columns beside the figures; steps become lists of structs."""
    flat = [row["key"] | {key: value for key, value in row.items() if key != "key"} for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    flat = [{name: row.get(name) for name in names} for row in flat]  # the first row's would be all that there are
    pq.write_table(pa.Table.from_pylist(flat), RESULTS / f"{name}.parquet", compression="zstd")


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first row its head."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean, and standard deviation where there is more than one."""
    text = f"{statistics.mean(values):.{digits}f}"
    return text + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def command() -> str:
    """The command line as given, for the page, but for where this machine keeps its files."""
    given, said = iter(sys.argv[1:]), ["python", f"benchmarks/{Path(sys.argv[0]).name}"]
    for word in given:
        if word in ("--shared", "--work"):
            next(given, None)
        elif not word.startswith(("--shared=", "--work=")):
            said.append(word)
    return " ".join(said)


def machine() -> str:
    """Hardware and versions in one line."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    threads = torch.get_num_threads()
    return (
        f"{os.cpu_count()} CPU cores ({device_name(torch.device('cpu')).split(',')[0]}), {threads} "
        f"thread{'s' if threads > 1 else ''}, {gpu}; Python {platform.python_version()}, torch {torch.__version__}"
    )
