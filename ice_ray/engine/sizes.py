"""How large a form of a network is, in the figures that results and runs are told by."""

from __future__ import annotations

from typing import Any

from torch import nn

from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.target import macs
from ice_ray.tensor_files import tensors_size


def sizes(network: DenseNetwork, model: nn.Module) -> dict[str, Any]:
    """Parameters, multiply-adds an image and bytes of the weights' file of one form of the network."""
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds": macs(network, model),
        "file_bytes": tensors_size(model.state_dict()),
    }
