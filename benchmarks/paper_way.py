"""A grid point as the paper's program does it, on our removal: PIL decodes every image each time it is asked for, one
at a time; float32; the teacher's forward pass with its gradients; nothing taken over from another point.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from common import PREPROCESSING, PUBLISHED, Row, cifar10, dense_resnet20, images
from PIL import Image
from torch import Tensor

from ice_ray import IceHyperparameters, PruningData
from ice_ray.data.images import ImageSet, ImageSource
from ice_ray.engine.actions import FineTune
from ice_ray.engine.fine_tuning import FineTuner
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.ingest.roles import assign_roles, subsample
from ice_ray.pipelines.ice import IcePipeline
from ice_ray.training.fine_tune import Recipe

CPU = torch.device("cpu")


class DecodedWhenAsked(ImageSource):
    """JPEG files in memory; each image is decoded when a batch asks for it."""

    def __init__(self, files: list[bytes], labels: Tensor) -> None:
        self._files, self._labels = files, labels

    @classmethod
    def of(cls, real: ImageSet) -> DecodedWhenAsked:
        """JPEG files of the same images."""
        files = []
        for pixels in real.images.numpy():
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
            files.append(buffer.getvalue())
        return cls(files, real.labels)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 3, 32, 32

    @property
    def device(self) -> torch.device:
        return CPU

    def fetch(self, order: Tensor, sizes: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in order.split(list(sizes)):
            pixels = [np.asarray(Image.open(io.BytesIO(self._files[row])).convert("RGB")) for row in rows.tolist()]
            yield torch.from_numpy(np.stack(pixels)), self._labels[rows]

    def shuffled(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(len(self), generator=generator)

    def to(self, device: torch.device) -> DecodedWhenAsked:
        return self

    def fingerprint(self) -> str:
        return f"{len(self)} files"


class TeacherWithGradients(FineTuner):
    """Back-propagates through the teacher too, as happens where its forward pass is not told otherwise."""

    def _teacher_of(self, action: FineTune, answers: str) -> Callable[[Tensor], Tensor] | None:
        model = self._network.build(self._device)

        def answer(batch: Tensor) -> Tensor:
            with torch.inference_mode(False), torch.enable_grad():
                logits: Tensor = model(batch.clone())
            return logits

        return answer


class PaperExecutor(TorchExecutor):
    """With that teacher."""

    def __init__(self, network: DenseNetwork, data: PruningData, recipe: Recipe, seed: int) -> None:
        super().__init__(network, data, recipe, seed, CPU)
        together, dense = self._collective, self._dense
        self.fine_tuner = TeacherWithGradients(network, self._data, recipe, seed, CPU, together, dense, self.accuracy)


def paper_point(shared: Path, point: IceHyperparameters, train_share: float, eval_images: int) -> Row:
    """Seconds and result of one grid point, from files to the end; importing and reading the archive left out."""
    dataset = cifar10(shared)
    roles = assign_roles(dataset, "holdout", 0)
    train = subsample(dataset, roles.train, round(train_share * len(roles.train)), 0, "search train")
    validation = subsample(dataset, roles.validation, eval_images, 0, "search decide")
    data = PruningData(
        DecodedWhenAsked.of(images(dataset, train)), DecodedWhenAsked.of(images(dataset, validation)), PREPROCESSING
    )
    network = DenseNetwork(dense_resnet20(shared), (3, 32, 32))
    began = time.perf_counter()
    executor = PaperExecutor(network, data, Recipe(), 0)
    pipeline = IcePipeline(config=PUBLISHED, hyperparameters=point)
    preparation = pipeline.prepare(executor, True)
    state = pipeline.begin(executor)
    while not pipeline.is_done(executor, state):
        state = pipeline.advance(executor, state, preparation)
    return {
        "seconds": time.perf_counter() - began,
        "fine_tunes": sum(record.fine_tuned for record in state.records),
        "drop": state.records[-1].drop,
    }
