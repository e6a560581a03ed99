"""Small networks of which a part can be spared, and what is needed to prune and repair them."""

import copy
import gc
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import nn

from ice_ray.distributed import SingleProcess
from ice_ray.models.trace import trace_layers
from ice_ray.models.units import all_kept
from ice_ray.pruning.anatomy import dissect
from ice_ray.pruning.criteria import ScoringContext, criterion_named
from ice_ray.pruning.removal import remove_filters
from ice_ray.repair.batch_norms import recalibrate
from ice_ray.repair.calibration_images import judging
from ice_ray.repair.context import RepairContext, Structure
from ice_ray.repair.repair import Repaired, repair
from ice_ray.repair.step_problems import StepProblems

SHAPE = (3, 10, 10)


def pictures(count: int = 48) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


class Calibration:
    """Images of one process in batches, whose passes are whole ones.

    Args:
        given: (images, labels) of every batch, from the start at every call.
    """

    rank, views = 0, 1

    def __init__(self, given) -> None:
        self.batches = given

    @property
    def images(self) -> torch.Tensor:
        return torch.cat([images for images, _ in self.batches()])

    @property
    def count(self) -> int:
        return sum(self.sizes)

    @property
    def held(self) -> torch.Tensor:
        return torch.ones(self.count, dtype=torch.bool)

    @property
    def judges(self) -> torch.Tensor:
        return judging(self.count)

    def judges_of(self, batch: int) -> torch.Tensor:
        return self.judges.split(self.sizes)[batch]

    @cached_property
    def sizes(self) -> list[int]:
        return [len(images) for images, _ in self.batches()]

    @contextmanager
    def moving(self):
        yield

    def move_to(self, layer):
        pass

    @contextmanager
    def resuming(self, network, batch):
        yield

    @contextmanager
    def passing(self, network, indices):
        yield self.images[indices]


def calibration(images: torch.Tensor, size: int = 16) -> Calibration:
    return Calibration(lambda: ((part, torch.zeros(len(part), dtype=torch.int64)) for part in images.split(size)))


def repair_context(model, dense, units, norms, order, images: Calibration, key=(0,), **structure) -> RepairContext:
    own = Structure(order, norms, units=units, **structure)
    return RepairContext(model, lambda: dense, units, own, images, SingleProcess(), key, all_kept(units))


def scoring(name: str, context: RepairContext) -> ScoringContext:
    """What a criterion of that name is given."""
    return ScoringContext.of(context, StepProblems(), criterion_named(name).problems(context.units))


def live_bytes() -> int:
    """Of all tensors that Python's collector knows, but for those of lazy layers that have no shape yet."""
    tensors = (each for each in gc.get_objects() if isinstance(each, torch.Tensor))
    return sum(each.numel() * each.element_size() for each in tensors if not nn.parameter.is_lazy(each))


class Chain(nn.Module):
    """A pruned layer, something between, and what reads it."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x):
        return self.parts(x).flatten(1)


def repeat_filters(layer: nn.Module, norm: nn.Module | None = None) -> None:
    """The second half of a layer's filters become multiples of the first half's."""
    half = len(layer.weight) // 2
    with torch.no_grad():
        layer.weight[half:] = 2 * layer.weight[:half]
        if layer.bias is not None:
            layer.bias[half:] = 2 * layer.bias[:half]
        if norm is not None:
            for name in ("weight", "bias", "running_mean"):
                getattr(norm, name)[half:] = (2 if name == "running_mean" else 3) * getattr(norm, name)[:half]
            norm.running_var[half:] = 4 * norm.running_var[:half]
            norm.eps = 1e-12


def with_statistics(model: nn.Module) -> nn.Module:
    """Batch norms that know the images."""
    model.train()
    model(pictures())
    return model.eval()


def conv_to_conv(**options) -> tuple[nn.Module, nn.Module | None]:
    layer, norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
    return Chain(layer, norm, nn.ReLU(), nn.Conv2d(8, 6, 3, **options), nn.BatchNorm2d(6)), norm


def depthwise_between() -> tuple[nn.Module, nn.Module | None]:
    between = nn.Conv2d(8, 8, 3, groups=8, bias=False)
    with torch.no_grad():
        between.weight[4:] = between.weight[:4]
    return Chain(nn.Conv2d(3, 8, 1), nn.ReLU(), between, nn.Conv2d(8, 4, 1)), None


def linear_reader() -> tuple[nn.Module, nn.Module | None]:
    parts = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5))
    return Chain(*parts), None


def hidden_units() -> tuple[nn.Module, nn.Module | None]:
    return Chain(nn.Flatten(), nn.Linear(300, 8), nn.ReLU(), nn.Linear(8, 5)), None


class TwoReaders(Chain):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3), nn.ReLU())
        self.left, self.right = nn.Conv2d(8, 4, 3), nn.Conv2d(8, 2, 3, stride=2)

    def forward(self, x):
        read = self.parts(x)
        return torch.cat([self.left(read).mean((2, 3)), self.right(read).mean((2, 3))], 1)


NETWORKS = {
    "batch norm and activation": conv_to_conv,
    "stride, padding, bias": lambda: conv_to_conv(stride=2, padding=1, bias=True),
    "dilation and reflection": lambda: conv_to_conv(dilation=2, padding=2, padding_mode="reflect", bias=False),
    "groups": lambda: conv_to_conv(groups=2, bias=True),
    "depthwise between": depthwise_between,
    "linear reader": linear_reader,
    "hidden units": hidden_units,
    "several readers": lambda: (TwoReaders(), None),
}


class Case:
    """A network whose first layer's second half can be spared, and what is needed to prune it.

    Args:
        count: of calibration images.
    """

    def __init__(self, name: str, count: int = 48) -> None:
        self.images = pictures(count)
        torch.manual_seed(1)
        model, norm = NETWORKS[name]()
        self.dense = with_statistics(model)
        self.layer = next(key for key, each in model.named_modules() if isinstance(each, (nn.Conv2d, nn.Linear)))
        repeat_filters(model.get_submodule(self.layer), norm)
        for each in model.modules():  # those that read what has just been changed
            if isinstance(each, nn.BatchNorm2d) and each is not norm:
                recalibrate(model, calibration(pictures(), 48), SingleProcess(), self.layer)
        self.traces = trace_layers(model, SHAPE)
        anatomy = dissect(model, SHAPE, self.traces)
        self.unit = next(unit for step in anatomy.steps for unit in step.units if unit.layer == self.layer)
        self.order = [trace.name for trace in self.traces]

    def context(self, model: nn.Module, images: Calibration | None = None) -> RepairContext:
        norms = {trace.name: trace.norm for trace in self.traces}
        given, key = images or calibration(self.images, 48), (0, "step", 1)
        return repair_context(model, self.dense, (self.unit,), norms, self.order, given, key)

    def repaired(self, kind: str, removed: tuple[int, ...], epochs: float = 0.0) -> tuple[nn.Module, Repaired]:
        model, gone = copy.deepcopy(self.dense), {self.layer: removed}
        context = self.context(model)
        return model, repair(context, StepProblems(), kind, gone, lambda: remove_filters(model, SHAPE, gone), epochs)

    def pruned(self, kind: str, removed: tuple[int, ...]) -> tuple[nn.Module, dict]:
        if kind == "none":
            model = copy.deepcopy(self.dense)
            remove_filters(model, SHAPE, {self.layer: removed})
            return model, {}
        model, outcome = self.repaired(kind, removed)
        return model, outcome.refitted
