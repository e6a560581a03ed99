"""Which modules can be worked with: plain float ones. Wrappers are taken off; for others the error says what helps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ice_ray.errors import UserError
from ice_ray.models.ties import check_overlaps, kept_ties


def plain_module(module: object, name: str = "the model") -> nn.Module:
    """The module without the wrappers of torch.compile and data parallelism.

    Args:
        name: what messages call it.

    Raises:
        UserError: it is no module, or its weights are not plain float tensors of its layers; says which call helps.
    """
    if not isinstance(module, nn.Module):
        raise UserError(f"{name} is {_other(module)}, not a torch.nn.Module")
    inner = _unwrapped(module)
    fault = next(_faults(inner), None)
    if fault is not None:
        raise UserError(f"{name}: {fault}")
    return inner


def check_finite(model: nn.Module, name: str = "the model") -> None:
    """Raises UserError: a parameter holds NaN or infinity, or a buffer NaN (a mask may hold infinity)."""
    bad = [path for path, each in model.named_parameters() if not bool(each.isfinite().all())]
    bad += [path for path, each in model.named_buffers() if bool(each.isnan().any())]
    if bad:
        others = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise UserError(f"{name} holds NaN or infinity in {bad[0]}{others}: load weights that are finite")


def computes_as_usual(layer: nn.Module) -> bool:
    """Whether a layer computes what torch's own convolutions and linear layers do: some subclasses standardise their
    weights first.
    """
    if isinstance(layer, nn.Conv2d):
        return type(layer).forward is nn.Conv2d.forward and type(layer)._conv_forward is nn.Conv2d._conv_forward
    return isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward


def float_module(module: object, name: str = "the model") -> nn.Module:
    """The same in float32 on the CPU; what is one tensor stays one.

    Raises:
        UserError: as `plain_module`, or parameters that share memory without being one tensor.
    """
    inner = plain_module(module, name)
    check_overlaps(inner)
    with kept_ties(inner):
        return inner.to("cpu", torch.float32)


def _other(given: object) -> str:
    if isinstance(given, type):
        return f"the class {given.__name__}"
    if isinstance(given, dict):
        return "a dict (weights alone are no model: build it, and load_state_dict them)"
    return f"of type {type(given).__name__}"


def _unwrapped(module: nn.Module) -> nn.Module:
    while True:
        if "_orig_mod" in module._modules:  # what torch.compile returns, whose class lies in the compiler
            module = module.get_submodule("_orig_mod")
        elif isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        else:
            return module


def _faults(model: nn.Module) -> Iterator[str]:
    for path, layer in model.named_modules():
        where = f"layer '{path}'" if path else "it"
        call = f"model.get_submodule('{path}')" if path else "model"
        fault = _kind_of(layer) or _hook_of(layer, call) or next(_tensor_faults(layer), None)
        if fault is not None:
            yield f"{where} {fault}"
    if not any(True for _ in model.parameters()):
        yield "it has no parameters"


def _kind_of(layer: nn.Module) -> str | None:
    package = type(layer).__module__
    if isinstance(layer, torch.jit.ScriptModule):
        return "is a ScriptModule (torch.jit): give the Python module that it was made of"
    if "_orig_mod" in layer._modules:
        return "is compiled by itself: build the model without torch.compile, and compile the result"
    if package.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")):
        return f"is quantized ({type(layer).__name__}): give the float model, and quantize the result"
    return None


def _hook_of(layer: nn.Module, call: str) -> str | None:
    """Weights that are computed anew for each pass from other ones."""
    if parametrize.is_parametrized(layer):
        weight = next(iter(layer.parametrizations))  # type: ignore[arg-type]
        mend = f"torch.nn.utils.parametrize.remove_parametrizations({call}, '{weight}')"
        return f"has a parametrized {weight}: make it a plain one first, {mend}"
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            return f"has weight_norm: make it a plain weight first, torch.nn.utils.remove_weight_norm({call})"
        if isinstance(hook, SpectralNorm):
            return f"has spectral_norm: make it a plain weight first, torch.nn.utils.remove_spectral_norm({call})"
        if isinstance(hook, prune.BasePruningMethod):
            weight = hook._tensor_name
            return (
                f"is masked by torch.nn.utils.prune ({weight}_orig, {weight}_mask): make the mask permanent first, "
                f"torch.nn.utils.prune.remove({call}, '{weight}')"
            )
    return None


_TENSOR_FAULTS: tuple[tuple[Callable[[Tensor], bool], str], ...] = (
    (is_lazy, "has no values yet (a lazy layer): run one batch through the model first, model(images)"),
    (lambda each: each.is_meta, "is on the meta device and has no values: load its weights first"),
    (lambda each: each.is_quantized, "is quantized: give the float model, and quantize the result"),
    (torch.is_complex, "is complex; only real weights can be pruned and trained here"),
)


def _tensor_faults(layer: nn.Module) -> Iterator[str]:
    own = chain(layer.named_parameters(recurse=False), layer.named_buffers(recurse=False))
    for name, tensor in own:
        for is_so, words in _TENSOR_FAULTS:
            if is_so(tensor):
                yield f"holds {name}, which {words}"
                break
