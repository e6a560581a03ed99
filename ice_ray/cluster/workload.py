"""Everything a process of the cluster needs to build its executor, by reference into the object store."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.cloudpickle
import torch
from torch import Tensor, nn

from ice_ray.data.images import Preprocessing, PruningData
from ice_ray.distributed import Collective
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.snapshots import Snapshot
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.errors import UserError, told
from ice_ray.extensions import is_own
from ice_ray.guard import is_installed
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.ingest.load import StageImages
from ice_ray.models.asking import raised
from ice_ray.models.registry import ModelSpec, library_of
from ice_ray.models.weights import fit_weights
from ice_ray.pipelines.base import Pipeline
from ice_ray.pipelines.registry import build_pipeline
from ice_ray.pipelines.settings import PruningSettings
from ice_ray.training.config import PrecisionChoice
from ice_ray.training.precision import resolve


@dataclass(frozen=True)
class DenseModel:
    """A trained dense model that any process can rebuild: what to build, and its weights in the object store.

    Attributes:
        given: a module that was given as an object, in the object store too; None where the spec's name says it all.
    """

    spec: ModelSpec
    weights: ray.ObjectRef[Any]
    given: ray.ObjectRef[Any] | None = None

    @classmethod
    def share(cls, spec: ModelSpec, weights: dict[str, Tensor]) -> DenseModel:
        """Put the weights into the object store, and a module that was given, as Ray pickles all that it is handed. The
        code of its classes goes with it, unless they are of an installed package, which every node must have.

        Raises:
            UserError: the module cannot be pickled.
        """
        if spec.given is None:
            return cls(spec, ray.put(weights))
        try:
            module = spec.build()
            with _with_its_code(module):
                given = ray.put(module)
        except Exception as error:  # the module is anybody's
            raise UserError(
                f"model '{spec.name}' cannot be sent to other processes: pickling it raises {raised(error)}"
            ) from error
        return cls(dataclasses.replace(spec, given=None), ray.put(weights), given)

    def build(self) -> nn.Module:
        """The trained module on the CPU.

        Raises:
            UserError: the code of one that was given is not on this node.
        """
        module = self.spec.build() if self.given is None else self._received(self.given)
        fit_weights(module, ray.get(self.weights), "of the dense model")
        return module

    def _received(self, given: ray.ObjectRef[Any]) -> nn.Module:
        try:
            return dataclasses.replace(self.spec, given=ray.get(given)).build()
        except Exception as error:  # what unpickling a module raises is as varied as what it is made of
            if told(error) is not None:
                raise
            raise UserError(
                f"model '{self.spec.name}' cannot be read in another process ({raised(error)}): have what its code "
                "imports where every node imports it from, or all of it in the file that defines the model"
            ) from error


@contextmanager
def _with_its_code(module: nn.Module) -> Iterator[None]:
    """While the block runs, the classes of a module are pickled with their code, but for those of installed packages:
    another process may not find their file. (What a notebook or a script defines is so in any case.)
    """
    homes = [sys.modules.get(name) for name in sorted({type(each).__module__ for each in module.modules()})]
    own = [
        home
        for home in homes
        if home is not None
        and (file := getattr(home, "__file__", None))
        and not is_installed(Path(file))
        and home.__name__ not in ("__main__", *ray.cloudpickle.list_registry_pickle_by_value())
    ]
    for home in own:
        ray.cloudpickle.register_pickle_by_value(home)
    try:
        yield
    finally:
        for home in own:
            ray.cloudpickle.unregister_pickle_by_value(home)


@dataclass(frozen=True)
class Workload:
    """One stage's model, images and settings.

    Attributes:
        precision: as asked for; `auto` is resolved on the device that does the work.
        final: what the final epochs train on, where that is not `train`.
        above: of a ladder's rung, what it goes on from: the snapshot, and its accuracy in percent.
    """

    model: DenseModel
    train: StageImages
    validation: StageImages
    preprocessing: Preprocessing
    settings: PruningSettings
    precision: PrecisionChoice
    final: StageImages | None = None
    above: ray.ObjectRef[tuple[Snapshot, float]] | None = None

    @property
    def own_code(self) -> dict[str, str]:
        """The names of the user's own code in it, by what they are, as `ice_ray.guard.blaming` takes them."""
        own = {"model": self.model.spec.name, "pipeline": self.settings.pipeline, **self.settings.config.own_code}
        return {what: name for what, name in own.items() if is_own(name) and library_of(name) is None}

    def network(self) -> DenseNetwork:
        """The dense network, traced."""
        own = self.settings
        selection = own.selection or own.config.prune.selection
        network = DenseNetwork(self.model.build(), self.train.image_shape, selection, own.amounts, own.layout)
        return network if own.rung is None else network.on_rung(own.rung)

    def data(self) -> PruningData:
        """The images on the CPU, over shared memory."""
        final = self.final.get() if self.final is not None else None
        return PruningData(self.train.get(), self.validation.get(), self.preprocessing, final)

    def pipeline(self, hyperparameters: Hyperparameters) -> Pipeline:
        """What decides, for one set of hyperparameters."""
        return build_pipeline(self.settings.pipeline, self.settings.config, hyperparameters)

    def executor(self, device: torch.device, collective: Collective | None = None) -> TorchExecutor:
        """An executor of this workload on `device`."""
        recipe = self.settings.recipe(resolve(self.precision, device))
        return TorchExecutor(self.network(), self.data(), recipe, self.settings.seed, device, collective)


def own_device(cpus: float, gpus: float, device: torch.device | None = None) -> torch.device:
    """This process's device, with its threads and its share of GPU memory set from what it was given.

    Co-located processes must not starve each other: a process with half a GPU gets half of its memory.

    Args:
        device: the GPU to take where this process sees several; else the first it sees, which is the one it owns.

    Raises:
        UserError: torch finds no GPU where Ray has given one.
    """
    torch.set_num_threads(max(1, int(cpus)))
    if gpus <= 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "Ray has given a process a GPU and torch finds none there: a node whose --num-gpus is more than it has, or "
            "a torch without CUDA"
        )
    device = device or torch.device("cuda", 0)
    torch.cuda.set_device(device)
    if gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus, device)
    return device


def device_name(device: torch.device) -> str:
    """What the device is, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = torch.cpu.get_capabilities().get("cpu_name", "CPU") if hasattr(torch.cpu, "get_capabilities") else "CPU"
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"
