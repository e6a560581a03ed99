"""A network as it was before any training."""

from __future__ import annotations

import torch
from torch import nn

from ice_ray.errors import UserError
from ice_ray.randomness import seed_of


def reinitialise(model: nn.Module, key: tuple[int | str, ...]) -> None:
    """Draw every weight that trains anew, in place, as its module's own `reset_parameters` does.

    The draws are made on the CPU, so that they are the same for every device.

    Args:
        key: names the random choices.

    Raises:
        UserError: a module with parameters of its own that cannot be drawn anew.
    """
    device = next(model.parameters()).device
    fixed = [(each, each.detach().clone()) for each in model.parameters() if not each.requires_grad]
    model.cpu()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(*key))
        for name, module in model.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif any(each.requires_grad for each in module.parameters(recurse=False)):
                raise UserError(f"{name or 'the model'} ({type(module).__name__}) cannot be initialised anew")
    with torch.no_grad():
        for parameter, value in fixed:
            parameter.copy_(value)
    model.to(device)
