"""Which layers' filters must go together, read from Torch-Pruning's dependency graph."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ice_ray.errors import UserError
from ice_ray.models.answers import logits_of
from ice_ray.models.attention import number_of_heads
from ice_ray.models.copies import leaving_nothing
from ice_ray.models.units import FilterMap
from ice_ray.pruning.stand_ins import taking_weights_as_they_are
from ice_ray.pruning.torch_pruning import FlattenIndexMapping, channel_norm_pruners, cuts
from ice_ray.pruning.torch_pruning import torch_pruning as tp

Prunable = nn.Conv2d | nn.Linear
DEPTHWISE = "it is depthwise: its filters go with those of the layer it follows"
OUTPUTS = "nothing reads its filters: they are the model's outputs"
# More than flattening leads to: a filter of 64x64 positions, read four times.
_MOST_CHANNELS_A_FILTER = 16_384
# Operations of the graph (by the name of their gradient) that tie channels of several layers, or each other, together.
_TIES = {
    "AddBackward": "a sum",
    "SubBackward": "a difference",
    "ConcatOp": "a concatenation",
    "SplitOp": "a split",
    "SliceOp": "a slice",
    "LayerNormBackward": "a layer norm over its channels",
    "SoftmaxBackward": "a softmax over its channels",
    "ScaledDotProduct": "an attention",
    "AttentionBackward": "an attention",
}


@dataclass(frozen=True)
class Coupling:
    """What removing filters of a layer takes along; `coupled`, `columns`, `fixed`, `lanes` and `heads` are a
    `PrunableUnit`'s.

    Attributes:
        layer: module path.
        filters: how many it has.
        readers: layers that lose the same input channels.
        gates: other layers that lose the same filters, because their outputs multiply this one's (the second layer of
            a squeeze-and-excitation).
        groups: filters go alike from this many equal runs of them, because a grouped layer must keep equal groups.
        cut: all modules whose tensors are cut: it, its readers and gates, norms and depthwise layers between.
    """

    layer: str
    filters: int
    readers: tuple[str, ...]
    gates: tuple[str, ...]
    groups: int
    cut: tuple[str, ...] = ()
    coupled: tuple[FilterMap, ...] = ()
    columns: tuple[FilterMap, ...] = ()
    fixed: tuple[int, ...] = ()
    lanes: tuple[FilterMap, ...] = ()
    heads: bool = False

    @property
    def is_alone(self) -> bool:
        """Whether they are in no order of their own in another layer, no layer runs along them, and all may go."""
        return not (self.coupled or self.columns or self.fixed or self.lanes)


def filters_of(module: nn.Module) -> int:
    """Filters of a convolution, hidden units of a linear layer, heads of an attention."""
    if (heads := number_of_heads(module)) is not None:
        return heads
    return module.out_channels if isinstance(module, nn.Conv2d) else int(module.out_features)  # type: ignore[arg-type]


def dependency_graph(model: nn.Module, image_shape: tuple[int, int, int]) -> tp.DependencyGraph:
    """Torch-Pruning's graph of which channels hang together, traced from one image of zeros (C, H, W).

    Raises:
        UserError: it cannot make anything of a reshape.
    """
    parameter = next(model.parameters())
    example = torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype)
    with warnings.catch_warnings(), torch.enable_grad(), leaving_nothing(model), taking_weights_as_they_are(model):
        warnings.simplefilter("ignore")
        logging.getLogger("torch_pruning").setLevel(logging.ERROR)
        try:
            return tp.DependencyGraph().build_dependency(
                model,
                example_inputs=example,
                output_transform=logits_of,
                customized_pruners=channel_norm_pruners(model),
                verbose=False,
            )
        except (ZeroDivisionError, IndexError) as error:  # the forward pass has gone well before
            raise UserError(
                "the model cannot be traced: it reshapes channels in a way that Torch-Pruning cannot follow "
                f"({type(error).__name__}: {error}); write that part as a module without such a reshape"
            ) from error


def removal_group(graph: tp.DependencyGraph, module: Prunable, filters: list[int]) -> tp.Group:
    """Everything that goes when these filters of a layer go.

    Raises:
        ValueError: the trace has not met the layer.
    """
    prune = tp.prune_linear_out_channels if isinstance(module, nn.Linear) else tp.prune_conv_out_channels
    with _followable(len(filters) * _MOST_CHANNELS_A_FILTER), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return graph.get_pruning_group(module, prune, idxs=filters)


class EntangledError(Exception):
    """Reshapes from which the graph makes ever more channels (windowed attention), or which it follows in a circle (a
    local response norm behind a concatenation).
    """


@contextmanager
def _followable(most: int) -> Iterator[None]:
    """While the block runs, the graph follows filters through reshaped channels up to a limit."""
    spread, followed = FlattenIndexMapping.__call__, 0

    def limited(self: FlattenIndexMapping, indices: list[object]) -> list[object]:
        nonlocal followed
        followed += len(indices) * (1 if self.reverse else self._stride)
        if followed > most:
            raise EntangledError
        return spread(self, indices)  # type: ignore[no-any-return]

    FlattenIndexMapping.__call__ = limited
    try:
        yield
    finally:
        FlattenIndexMapping.__call__ = spread


def coupling_of(graph: tp.DependencyGraph, layer: str, modules: Mapping[str, nn.Module]) -> Coupling | str:
    """What must go with a layer's filters; or, in words, why they cannot go."""
    module = modules[layer]
    if not isinstance(module, (nn.Conv2d, nn.Linear)):
        return f"it is a {type(module).__name__}, not a convolution or a linear layer"
    if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
        return DEPTHWISE
    try:
        group = removal_group(graph, module, [0])
    except (EntangledError, ZeroDivisionError, IndexError):
        return "its channels are reshaped in a way that cannot be followed"
    except ValueError:
        return (
            "its weights are used outside its own forward pass (as in nn.MultiheadAttention), or the model runs it "
            "without gradients"
        )
    names = {id(found): name for name, found in modules.items()}
    readers: dict[str, None] = {}
    gates: dict[str, None] = {}
    cut: dict[str, None] = {layer: None}
    runs = [module.groups] if isinstance(module, nn.Conv2d) else [1]
    for item in group:
        target, reads = item.dep.target, item.dep.handler.__name__ == "prune_in_channels"
        name = names.get(id(target.module))
        if name is not None:
            cut[name] = None
            if not reads and (extra := _left_whole(target.module)) is not None:
                return f"{name} has {extra} beside its weight, which nothing would cut with its filters"
        if name is None:
            if (tie := _tie(target.name)) is not None:
                return f"{tie} couples its filters to {_other_owner(group, module, names) or 'other channels'}"
        elif reads and isinstance(target.module, (nn.Conv2d, nn.Linear)):
            readers[name] = None
            runs.append(getattr(target.module, "groups", 1))
        elif target.module is module or isinstance(target.module, (_BatchNorm, nn.PReLU)) or cuts(target.module):
            continue
        elif isinstance(target.module, nn.GroupNorm):
            runs.append(target.module.num_groups)
        elif isinstance(target.module, (nn.Conv2d, nn.Linear)):
            if not (isinstance(target.module, nn.Conv2d) and target.module.groups == target.module.in_channels > 1):
                gates[name] = None
        else:
            return f"its channels go through {name} ({type(target.module).__name__})"
    if gates and not _multiplied(group):
        return f"its filters go together with those of {next(iter(gates))}, which do more than multiply them"
    if not readers:
        return OUTPUTS
    filters, groups = filters_of(module), math.lcm(*runs)
    if filters % groups or filters < 2 * groups:
        return f"a grouped layer ({groups} groups) leaves none of its {filters} filters free"
    return Coupling(layer, filters, tuple(readers), tuple(gates), groups, tuple(cut))


def _left_whole(module: nn.Module) -> str | None:
    """A tensor that a layer holds for each of its filters and that the graph does not know of, such as a gain."""
    if not isinstance(module, (nn.Conv2d, nn.Linear)):
        return None
    own = {**module._parameters, **module._buffers}
    extra = (name for name, each in own.items() if each is not None and filters_of(module) in each.shape)
    return next((name for name in extra if name not in ("weight", "bias")), None)


def _multiplied(group: tp.Group) -> bool:
    """Whether what several layers give comes together in a group, and wherever it does, is multiplied."""
    nodes = {id(item.dep.target): item.dep.target for item in group}
    joined = [node for node in nodes.values() if len({id(given) for given in node.inputs} & set(nodes)) > 1]
    operations = [node.name for node in joined if "ElementWiseOp" in node.name]
    return bool(operations) and all("MulBackward" in name for name in operations)


def _tie(operation: str) -> str | None:
    if "UnwrappedParameter" in operation:
        return "a bare parameter"
    return next((words for part, words in _TIES.items() if part in operation), None)


def _other_owner(group: tp.Group, module: nn.Module, names: Mapping[int, str]) -> str | None:
    """Another layer whose filters are in the group, for the message."""
    for item in group:
        target = item.dep.target.module
        owns = item.dep.handler.__name__ == "prune_out_channels" and isinstance(target, (nn.Conv2d, nn.Linear))
        if owns and target is not module and id(target) in names:
            return f"those of {names[id(target)]}"
    return None
