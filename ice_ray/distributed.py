"""What the processes of a run do together: one process alone, or several through torch.distributed."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ice_ray.data.batches import Shard
from ice_ray.errors import RunError


class Collective(ABC):
    """The processes that carry out one run's actions together: the same actions, each on its share of the rows."""

    @property
    @abstractmethod
    def shard(self) -> Shard:
        """Which rows of every batch are this process's."""

    @abstractmethod
    def sum(self, value: Tensor) -> Tensor:
        """The elementwise sum over processes, on every process."""

    @abstractmethod
    def max(self, value: Tensor) -> Tensor:
        """The elementwise maximum over processes, on every process."""

    @abstractmethod
    def agree(self, value: Tensor) -> Tensor:
        """Rank 0's tensor, on every process."""

    @abstractmethod
    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, such that its backward pass averages gradients over processes."""

    @abstractmethod
    def average_buffers(self, model: nn.Module) -> None:
        """Average floating-point buffers over processes, in place."""

    @abstractmethod
    def settle(self, model: nn.Module) -> None:
        """After a fine-tune: average the buffers, and check that all processes hold the same bits.

        Raises:
            RunError: the processes have diverged.
        """


class SingleProcess(Collective):
    shard = Shard(0, 1)

    def sum(self, value: Tensor) -> Tensor:
        return value

    def max(self, value: Tensor) -> Tensor:
        return value

    def agree(self, value: Tensor) -> Tensor:
        return value

    def wrap(self, model: nn.Module) -> nn.Module:
        return model

    def average_buffers(self, model: nn.Module) -> None:
        return None

    def settle(self, model: nn.Module) -> None:
        return None


class ProcessGroup(Collective):
    """The default process group, already initialised. Gradients are averaged by DistributedDataParallel.

    Batch-norm statistics are each process's own while it trains; the running buffers are averaged afterwards, so
    all processes end with the same bits. One process and several differ by the arithmetic of splitting a batch
    and by those statistics (and a last batch with fewer than two rows a process is left out).
    """

    @property
    def shard(self) -> Shard:
        return Shard(dist.get_rank(), dist.get_world_size())

    def sum(self, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    def max(self, value: Tensor) -> Tensor:
        greatest = value.clone()
        dist.all_reduce(greatest, op=dist.ReduceOp.MAX)
        return greatest

    def agree(self, value: Tensor) -> Tensor:
        agreed = value.clone()
        dist.broadcast(agreed, src=0)
        return agreed

    def wrap(self, model: nn.Module) -> nn.Module:
        # Wrapped anew for every fine-tune: surgery and freezing change which parameters there are to reduce.
        with warnings.catch_warnings():
            # torch 2.15 calls the option forward_sync_buffers, earlier ones know only this name.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return DistributedDataParallel(model, broadcast_buffers=False)

    def average_buffers(self, model: nn.Module) -> None:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                # In double precision what is the same on all stays as it is, whatever their number.
                buffer.copy_(self.sum(buffer.double()) / dist.get_world_size())

    def settle(self, model: nn.Module) -> None:
        self.average_buffers(model)
        own = checksum(model)
        extremes = torch.stack([own, -own])
        dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
        if int(extremes[0]) != -int(extremes[1]):
            raise RunError(f"process {dist.get_rank()}: weights differ between processes after a fine-tune")


def checksum(model: nn.Module) -> Tensor:
    """An int64 scalar, on the model's device, that changes with any bit of any weight or buffer."""
    total = torch.zeros((), dtype=torch.int64, device=next(model.parameters()).device)
    for position, tensor in enumerate(model.state_dict().values(), start=1):
        bits = tensor.contiguous().view(torch.int32) if tensor.is_floating_point() else tensor
        places = torch.arange(1, bits.numel() + 1, device=bits.device)
        total += position * (bits.flatten().long() * places).sum()
    return total % (2**62)
