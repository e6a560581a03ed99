"""Carries out actions on a live network, and measures what they cost."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ice_ray.data.images import FixedSample, ImageSource, PruningData
from ice_ray.data.placement import placement, to_device
from ice_ray.distributed import Collective, SingleProcess
from ice_ray.engine.actions import (
    Action,
    CompareWeights,
    FineTune,
    LayerShares,
    Mask,
    Measure,
    Measured,
    Outcome,
    Prune,
    Reinitialise,
    Repair,
    Score,
    SnapshotId,
    UnprunedShare,
    WeightNorm,
    next_id,
    root_id,
)
from ice_ray.engine.calibrator import Calibrator
from ice_ray.engine.cost import Cost
from ice_ray.engine.fine_tuning import FineTuner
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.snapshots import Snapshot, SnapshotStore
from ice_ray.engine.work import Stopwatch, forward_flops
from ice_ray.errors import OutOfMemoryError
from ice_ray.models.copies import fill, reinitialise
from ice_ray.models.ties import copies_of
from ice_ray.models.units import Kept, all_kept, kept_without
from ice_ray.pruning.freezing import weight_changes
from ice_ray.pruning.masking import mask_smallest, weight_norm
from ice_ray.pruning.removal import remove_filters
from ice_ray.randomness import generator
from ice_ray.training.evaluate import count_correct, evaluation_batch
from ice_ray.training.fine_tune import Recipe


@dataclass(frozen=True)
class _Live:
    """The network that is worked on.

    Attributes:
        kept: by layer that owns filters, which of the dense network's it has.
    """

    snapshot: SnapshotId
    model: nn.Module
    kept: Kept


class TorchExecutor:
    """Maps (snapshot, action) to an outcome. Every process of a distributed run has one and runs the same actions.

    Args:
        network: the dense network.
        data: images, brought to `device` where they fit.
        recipe: how fine-tunes are done.
        seed: of the run; every random choice is drawn from it and the action's own key.
        device: where the work is done.
        collective: the processes that work together.

    Attributes:
        fine_tuner: carries out the fine-tunes.

    One network is live at a time; an action on another snapshot takes that one from the store, so it must have
    been committed.
    """

    def __init__(
        self,
        network: DenseNetwork,
        data: PruningData,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        collective: Collective | None = None,
    ) -> None:
        self.network = network
        self.recipe = recipe
        self.device = device
        self.store = SnapshotStore()
        final = to_device(data.final, device) if data.final is not None else None
        preprocessing = dataclasses.replace(data.preprocessing, channels_last=network.layout == "channels_last")
        self._data = PruningData(
            to_device(data.train, device), to_device(data.validation, device), preprocessing, final
        )
        self._seed = seed
        self._part = FixedSample(self._data.validation, (seed, "part"))
        self._collective = collective or SingleProcess()
        self.root: SnapshotId = root_id(self._identity())
        self._live: _Live | None = None
        self._unpruned: nn.Module | None = None
        together, dense = self._collective, self._dense
        self._calibrator = Calibrator(network, self._data, recipe.precision, seed, together, dense)
        self.fine_tuner = FineTuner(network, self._data, recipe, seed, device, together, dense, self.accuracy)

    @property
    def placement(self) -> str:
        """Where the training images are held, for people."""
        return placement(self._data.train)

    @property
    def validation_images(self) -> int:
        return len(self._data.validation)

    def run(self, snapshot: SnapshotId, action: Action) -> Outcome:
        """Carry out one action on a snapshot.

        Raises:
            TrialFailure: the fine-tune diverged or ran out of memory.
            RunError: the snapshot is neither live nor committed.
        """
        try:
            return self._carry_out(snapshot, action)
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(
                "out of GPU memory: give each process more of a GPU, or take a smaller batch size"
            ) from error

    def warm_up(self, trains: bool = True) -> float:
        """Train and measure a copy of the dense network on a few images, so that one-off costs of the libraries
        (loading kernels, first communication) fall on no step's clock. Returns the wall seconds it took.

        Args:
            trains: whether anything will train the network; training takes many times the memory of what else is done.
        """
        watch = Stopwatch(self.device)
        count = 2 * (self.recipe.batch_size if trains else evaluation_batch(self._data.train.image_shape, self.device))
        few = self._data.train.take(torch.arange(min(len(self._data.train), count)))
        self.accuracy(self.fine_tuner.warm_up(few) if trains else self._dense(), few)
        one = torch.eye(2, dtype=torch.float64, device=self.device)
        torch.linalg.solve(one, one)
        return watch.seconds()

    def commit(self, snapshot: SnapshotId) -> Snapshot:
        """Put a snapshot into the store, from which it can be acted on again or saved."""
        live = self._make_live(snapshot)
        content = Snapshot(snapshot, {layer: tuple(own) for layer, own in live.kept.items()}, _on_cpu(live.model))
        self.store.put(content)
        return content

    def rename_root(self, root: SnapshotId) -> None:
        """Give the dense network the name that other executors share, or one that none has."""
        self.root = root
        self._live = None
        self._calibrator.forget()

    def holds(self, snapshot: SnapshotId) -> bool:
        """Whether the snapshot can be acted on: it is live, committed or the root."""
        is_live = self._live is not None and self._live.snapshot == snapshot
        return is_live or snapshot == self.root or snapshot in self.store

    def module(self, snapshot: SnapshotId) -> nn.Module:
        """The live module of a snapshot; the executor goes on using it, so copy what is to be kept."""
        return self._make_live(snapshot).model

    def filters_left(self, snapshot: SnapshotId) -> dict[str, tuple[int, ...]]:
        """By a unit's layer, which of the dense network's filters a snapshot has: what `build_pruned` takes."""
        kept = self._make_live(snapshot).kept
        whole = {attention: tuple(range(count)) for attention, count in self.network.whole_heads.items()}
        return {unit.layer: tuple(kept[unit.layer]) for unit in self.network.units} | whole

    def accuracy(self, model: nn.Module, images: ImageSource) -> float:
        """Percent of `images` (on the executor's device) that `model` labels right, over all processes."""
        return self._measure(model, images, Measure()).accuracy

    def _measure(self, model: nn.Module, images: ImageSource, action: Measure) -> Measured:
        """In a seeded random order where a part may do, so that any first part is a fair sample of all."""
        threshold, total, shard = action.threshold, len(images), self._collective.shard
        looks = math.ceil(total / (evaluation_batch(images.image_shape, images.device) * shard.world))
        order = None
        if threshold is not None:
            drawn = generator(self._seed, "measure")
            # An error probability holds for a uniform order alone; else one that can be fetched quickly will do.
            order = torch.randperm(total, generator=drawn) if threshold.error else images.shuffled(drawn)

        def enough(correct: Tensor, seen: int) -> bool:
            if threshold is None:
                return False
            return threshold.verdict(int(self._collective.sum(correct)), seen, total, looks) is not None

        preprocessing, precision = self._data.preprocessing, self.recipe.precision
        answering = self.network.for_inference(model)
        counted, seen = count_correct(answering, images, preprocessing, precision, shard, order, enough)
        correct = int(self._collective.sum(counted))
        reached = threshold is not None and bool(threshold.verdict(correct, seen, total, looks))
        return Measured(100.0 * correct / seen, seen, reached)

    def _carry_out(self, snapshot: SnapshotId, action: Action) -> Outcome:
        live = self._make_live(snapshot)
        model, kept = live.model, live.kept
        if isinstance(action, (Prune, Mask, Reinitialise, FineTune)):
            self._calibrator.forget()
        self._live = None  # an action that fails half-way leaves no network behind that could be mistaken for one
        context = None
        if isinstance(action, (Score, Repair)):
            context = self._calibrator.context(model, kept, action, snapshot)
        prepared = self.fine_tuner.prepare(action, self.root) if isinstance(action, FineTune) else None
        watch = Stopwatch(self.device)
        flops = 0.0
        value: Any = None
        after = snapshot
        match action:
            case Score():
                assert context is not None
                value, flops = self._calibrator.score(action, context, snapshot)
            case Prune():
                remove_filters(model, self.network.image_shape, dict(action.removed))
                kept = kept_without(self.network.units, kept, dict(action.removed))
                after = next_id(snapshot, action)
            case Mask():
                mask_smallest(model, action.share)
                after = next_id(snapshot, action)
            case Reinitialise():
                reinitialise(model, (self._seed, *action.key))
                after = next_id(snapshot, action)
            case Repair():
                assert context is not None
                after = next_id(snapshot, action)
                value, flops = self._calibrator.repair(action, context, snapshot, after)
                kept = kept_without(self.network.units, kept, dict(action.removed))
            case Measure():
                images = self._data.validation if action.images is None else self._part.take(action.images)
                value = self._measure(model, images, action)
                flops = forward_flops(model, self.network.traces) * value.images
            case UnprunedShare():
                value = self.network.unpruned_share(model, action.counting)
            case LayerShares():
                value = self.network.layer_shares(model, action.counting)
            case WeightNorm():
                own = torch.tensor(weight_norm(model), dtype=torch.float64, device=self.device)
                value = float(self._collective.agree(own))
            case FineTune():
                assert prepared is not None
                value, flops = self.fine_tuner.run(model, action, prepared)
                after = next_id(snapshot, action)
            case CompareWeights():
                before = self.store.get(action.since).tensors
                value = weight_changes(before, _on_cpu(model), self.network.freezable, action.change)
            case _:
                raise TypeError(f"{action!r:.80} is no action")
        seconds = watch.seconds()
        if prepared is not None:
            seconds += prepared.inherited_seconds
            self.fine_tuner.keep_answers(prepared)
        self._live = _Live(after, model, kept)
        return Outcome(after, value, Cost(seconds, flops))

    def _make_live(self, snapshot: SnapshotId) -> _Live:
        if self._live is None or self._live.snapshot != snapshot:
            self._live = self._rebuild(snapshot)
        return self._live

    def _rebuild(self, snapshot: SnapshotId) -> _Live:
        units = self.network.units
        if snapshot == self.root:
            return _Live(snapshot, self.network.build(self.device), all_kept(units))
        content = self.store.get(snapshot)
        model = self.network.build_pruned({unit.layer: content.kept[unit.layer] for unit in units}, self.device)
        fill(model, content.tensors)
        return _Live(snapshot, model, content.kept)

    def _dense(self) -> nn.Module:
        """The network before pruning, as it was built: with its batch norms, in eval mode."""
        if self._unpruned is None:
            self._unpruned = self.network.build(self.device)
        return self._unpruned

    def _identity(self) -> dict[str, Any]:
        layout = {} if self.network.layout == "channels_last" else {"layout": self.network.layout}
        return layout | {
            "weights": self.network.weights_hash,
            "train": self._data.train.fingerprint(),
            "validation": self._data.validation.fingerprint(),
            "final": self._data.final.fingerprint() if self._data.final is not None else "",
            "preprocessing": repr(self._data.preprocessing),
            "recipe": repr(self.recipe),
            "seed": self._seed,
            "world": self._collective.shard.world,
            "threads": torch.get_num_threads(),
            "device": self.device.type,
            "torch": torch.__version__,
            **({"fixed": self.network.fixed} if self.network.fixed else {}),
        }


def _on_cpu(model: nn.Module) -> dict[str, Tensor]:
    return copies_of(model.state_dict())
