"""What the processes of a run do together. A single process is the simplest case."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ice_ray.data.batches import Shard


class Collective(ABC):
    """The processes that carry out one run's actions in step: all decide the same, each takes a share of the rows."""

    @property
    @abstractmethod
    def shard(self) -> Shard:
        """Which rows of every batch are this process's."""

    @abstractmethod
    def sum(self, value: Tensor) -> Tensor:
        """The sum over processes of a tensor, on every process."""

    @abstractmethod
    def max(self, value: Tensor) -> Tensor:
        """The greatest over processes, element by element, on every process."""

    @abstractmethod
    def agree(self, value: Tensor) -> Tensor:
        """The first process's tensor, on every process."""

    @abstractmethod
    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` such that its backward pass averages gradients over processes."""

    @abstractmethod
    def average_buffers(self, model: nn.Module) -> None:
        """Average the running statistics over processes, in place."""

    @abstractmethod
    def settle(self, model: nn.Module) -> None:
        """After a fine-tune: average the running statistics over processes, and see that all hold the same bits.

        Raises:
            RunError: processes have drifted apart.
        """


class SingleProcess(Collective):
    """One process: nothing to do together."""

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
