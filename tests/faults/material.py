"""What the jobs of the fault suite prune: a ResNet-14 briefly trained on real images, CIFAR-10 as JPEG in parquet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ice_ray.data.images import ImageSet, Preprocessing
from ice_ray.ingest.datasets import open_dataset
from ice_ray.models.registry import ModelSpec
from ice_ray.tensor_files import write_tensors
from ice_ray.training.config import FineTuneConfig
from ice_ray.training.fine_tune import Recipe, fine_tune

_ROWS, _TRAINED_ON = {"train": 2000, "test": 400}, 1000
_SPACE = """
accuracy_drop_threshold: [0.0]
frozen_fraction: [0.3]
base_learning_rate: [0.01, 0.02]
learning_rate_reduction: [0.005]
midpoint_pruned_share: [0.05, 0.15]
steepness: [50]
"""


@dataclass(frozen=True)
class Material:
    """Files of a job.

    Attributes:
        trials: of its search.
    """

    folder: Path
    trials: int = 4

    @classmethod
    def make(cls, folder: Path, shared: Path) -> Material:
        """The first rows of the real files, weights and a space; takes some seconds of training."""
        data = folder / "data"
        data.mkdir(parents=True)
        for split, rows in _ROWS.items():
            first = sorted((shared / "datasets" / "cifar10-jpeg").glob(f"{split}-*.parquet"))[0]
            pq.write_table(_whole(pq.read_table(first).slice(0, rows)), data / f"{split}.parquet")
        (folder / "space.yaml").write_text(_SPACE)
        own = cls(folder)
        write_tensors(own._weights, own._trained())
        return own

    @property
    def options(self) -> list[str]:
        """Of the job's command line. Everything is by the work clock: what is compared must not depend on the wall."""
        return [
            *(
                "--model",
                "cifar-resnet14",
                "--weights",
                str(self._weights),
                "--data",
                f"parquet:{self.folder / 'data'}",
            ),
            *("--image-size", "16", "--space", str(self.folder / "space.yaml"), "--search.trials", str(self.trials)),
            # Every step is fine-tuned, and long enough for a fault to come before the next.
            *("--no-threshold", "--fine-tune.replay-epochs", "3"),
            *("--criterion", "l1", "--repair", "none"),
            *("--search.clock", "work", "--search.work-speed", "1e9", "--precision", "fp32"),
            *("--search.subsample", "0.2", "--search.eval-images", "100"),
            *("--replay.workers", "2", "--replay.cpus", "1", "--replay.subsample", "1.0", "--batch-size", "64"),
        ]

    @property
    def _weights(self) -> Path:
        return self.folder / "weights.safetensors"

    def _trained(self) -> dict[str, torch.Tensor]:
        torch.set_num_threads(1)
        dataset = open_dataset(f"parquet:{self.folder / 'data'}")
        rows = np.arange(_TRAINED_ON)
        pixels = np.stack([row.pixels for row in dataset.read("train", rows) if row.pixels is not None])
        images = ImageSet.from_numpy(pixels, dataset.labels["train"][rows])
        model = ModelSpec("cifar-resnet14", 10).build()
        recipe = Recipe(batch_size=64, options=FineTuneConfig(distil=False))
        fine_tune(
            model, images, Preprocessing(pad=4, flip=True), recipe, lambda done: 0.05 * (1 - done), 3, (0, "dense")
        )
        return model.state_dict()


def _whole(rows: pa.Table) -> pa.Table:
    """The rows in buffers of their own: a slice would bring the whole file along."""
    return pa.Table.from_pylist(rows.to_pylist(), schema=rows.schema)
