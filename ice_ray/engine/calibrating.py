"""What looks at calibration images: scores of filters, and repairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from ice_ray.cache.activations import ActivationCache
from ice_ray.data.batches import Batch, Shard, evaluation_batches
from ice_ray.data.images import PruningData
from ice_ray.distributed.collective import Collective
from ice_ray.engine.actions import Repair, Score, SnapshotId
from ice_ray.engine.calibration_images import CalibrationSample
from ice_ray.engine.cost import forward_flops, refit_flops
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.samples import FixedSample
from ice_ray.models.partial_forward import Activations, ResumePoint, resume_from
from ice_ray.models.trace import LayerTrace
from ice_ray.pruning.calibration import from_the_start
from ice_ray.pruning.criteria import ScoringContext, criterion_named
from ice_ray.pruning.removal import remove_filters
from ice_ray.repair import Repaired, made_ready, misses_readers, repair
from ice_ray.training.evaluate import evaluation_batch
from ice_ray.training.precision import Precision, autocast

_LARGEST_BATCH = 128
_FLOAT_BYTES = 4
MOST_BYTES = 256 * 2**20
"""Of activations that a process holds for a network between two steps: more are computed again in every pass."""


class Calibrator:
    """Scores filters and repairs networks, on the same images at every step.

    Args:
        network: the dense network.
        data: the calibration images are drawn from its training images.
        precision: of the passes that score.
        seed: of the run.
        collective: the processes that work together; each looks at its share of the images.
        dense: the network before pruning, as it was built: with its batch norms, in eval mode.
    """

    def __init__(
        self,
        network: DenseNetwork,
        data: PruningData,
        precision: Precision,
        seed: int,
        collective: Collective,
        dense: Callable[[], nn.Module],
    ) -> None:
        self._network, self._data, self._precision, self._seed = network, data, precision, seed
        self._collective, self._dense = collective, dense
        self._images = FixedSample(data.train, (seed, "calibration"))
        self._known: tuple[tuple[SnapshotId, int, int], dict[str, Any]] | None = None
        self._activation_caches = ActivationCache(), ActivationCache()  # in the network as it stands, in the dense one

    def forget(self) -> None:
        """What is known is of a network that is no more. Of the dense one, too, nothing is held: others need memory."""
        self._known = None
        for cache in self._activation_caches:
            cache.forget()

    def get_ready(self, action: Score | Repair) -> None:
        """What an action needs to know of the network, whoever asks: no cost of its own."""
        if _refits(action):
            _ = self._network.resume_points, self._network.residual_branches  # found once, kept

    def score(self, model: nn.Module, action: Score, snapshot: SnapshotId) -> tuple[dict[str, Tensor], float]:
        """Scores on the CPU, rank 0's everywhere: nearly equal ones must not order differently on unlike devices.
        And the operations spent.
        """
        context, criterion = self._context(model, action, snapshot), criterion_named(action.criterion)
        with autocast(self._precision, self._data.train.device):
            scores = criterion.score(context)
        if not action.step:
            self._known = None  # of all layers at once: too much to keep
        agreed = {
            layer: self._collective.agree(each.to(self._data.train.device).float()).cpu()
            for layer, each in scores.items()
        }
        if criterion.sets_up_refits:
            traces = self._run_through(action.step, action.images)
            readers = dict.fromkeys(reader for unit in context.units for reader in unit.consumers)
            set_up = [*made_ready(context), *readers]
            per_image = sum(refit_flops(model, self._dense(), traces, layer) for layer in set_up)
        else:
            per_image = criterion.passes * forward_flops(model, self._network.traces)
        return agreed, per_image * min(action.images, len(self._data.train))

    def repair(
        self, model: nn.Module, action: Repair, snapshot: SnapshotId, after: SnapshotId
    ) -> tuple[Repaired, float]:
        """Remove and repair, in place and in full precision; all processes end with the same bits. What has come of
        it, and the operations spent.

        Args:
            after: the snapshot that this leads to.
        """
        order, removed = [trace.name for trace in self._network.traces], dict(action.removed)
        context = self._context(model, action, snapshot)
        repaired = repair(
            context,
            action.kind,
            removed,
            order,
            lambda: remove_filters(model, self._network.image_shape, removed),
            action.epochs,
        )
        self._known = None
        self._activation_caches[0].rename((snapshot, action.images), (after, action.images), removed)
        for tensor in model.state_dict().values():  # unlike devices may solve to other last bits
            tensor.copy_(self._collective.agree(tensor))
        traces = self._run_through(action.step, action.images)
        set_up = list(repaired.refitted)
        if not action.scored:
            set_up = [*made_ready(context), *set_up]
        elif set_up and any(set_up[0] in unit.consumers for unit in context.units):
            set_up = set_up[1:]  # the scores have charged it
        per_image = sum(refit_flops(model, self._dense(), traces, layer) for layer in set_up)
        if misses_readers(context, repaired.refitted):
            per_image += forward_flops(model, traces)
        if repaired.reconstructed:
            per_image += self._reconstruction_flops(model, action, repaired)
        return repaired, per_image * min(action.images, len(self._data.train))

    def _reconstruction_flops(self, model: nn.Module, action: Repair, repaired: Repaired) -> float:
        """Of one calibration image: passes that measure what is left before and after, and per epoch one and, from the
        step's first layer on, the way back, which takes twice as long. The dense network's once, where that is held.
        """
        units = self._network.steps[action.step - 1].units
        layers = {name for unit in units for name in (unit.layer, *unit.consumers)}
        resume_point = self._resume_point(action.step, action.images)
        traces = [
            each for each in self._network.traces if resume_point is None or not resume_point.is_behind(each.name)
        ]
        first, *_, last = (number for number, each in enumerate(traces) if each.name in layers)
        passed, trained = traces[: last + 1], traces[first : last + 1]
        passes = 2 + action.epochs
        dense = forward_flops(self._dense(), passed) * (1 if repaired.targets_held else 1 + passes)
        return dense + passes * forward_flops(model, passed) + 2 * action.epochs * forward_flops(model, trained)

    def _context(self, model: nn.Module, action: Score | Repair, snapshot: SnapshotId) -> ScoringContext:
        about = snapshot, action.step, action.images
        if self._known is None or self._known[0] != about:
            self._known = about, {}
        activations = self._activations(model, snapshot, action)

        def resuming(network: nn.Module, number: int) -> AbstractContextManager[object]:
            found = activations(network)
            return from_the_start(network, number) if found is None else resume_from(network, found[number])

        return ScoringContext(
            model=model,
            units=self._network.steps[action.step - 1].units if action.step else self._network.units,
            norms=self._network.norms,
            key=(self._seed, "step", action.step),
            batches=lambda: self._batches(action.images),
            reduction=self._collective,
            dense=self._dense,
            rank=self._collective.shard.rank,
            known=self._known[1],
            resuming=resuming,
            residual_branches=self._network.residual_branches if _refits(action) else (),
            answers=self._network.answers if action.step == len(self._network.steps) else None,
            fixed=self._network.fixed_layers,
            calibration_set=lambda: CalibrationSample(
                self._images.take(action.images), self._data.preprocessing, *self._shares(action.images), activations
            ),
        )

    def _activations(
        self, model: nn.Module, snapshot: SnapshotId, action: Score | Repair
    ) -> Callable[[nn.Module], Sequence[Activations] | None]:
        """Where the batches stand in a step's network, and in the dense one: where the step begins, as far as that can
        be held.
        """

        def activations(network: nn.Module) -> Sequence[Activations] | None:
            resume_point = self._resume_point(action.step, action.images)
            if resume_point is None:
                return None
            cache = self._activation_caches[0 if network is model else 1]
            of = (snapshot, action.images) if network is model else action.images
            return cache.at(resume_point, network, of, self._batches(action.images))

        return activations

    def _resume_point(self, step: int, images: int) -> ResumePoint | None:
        """Where passes of a step begin, if what stands there may be held."""
        resume_point = self._network.resume_points.get(step)
        own = math.ceil(min(images, len(self._data.train)) / self._collective.shard.world)
        return (
            resume_point if resume_point is not None and resume_point.size * own * _FLOAT_BYTES <= MOST_BYTES else None
        )

    def _run_through(self, step: int, images: int) -> list[LayerTrace]:
        """What passes of a step's network run through at most: from the resume point of the step before, whence the
        activations are moved on, as where no fine-tune has come between.
        """
        before, own = self._resume_point(step - 1, images), self._resume_point(step, images)
        if before is None or own is None or not own.follows(before):
            return list(self._network.traces)
        return [trace for trace in self._network.traces if not before.is_behind(trace.name)]

    def _batches(self, count: int) -> Iterator[Batch]:
        """This process's share of the first `count` images."""
        images, (size, shard) = self._images.take(count), self._shares(count)
        for batch, labels in evaluation_batches(images, self._data.preprocessing, size, shard):
            if len(labels):
                yield batch, labels

    def _shares(self, count: int) -> tuple[int, Shard]:
        """Images of a batch of each process, and which process this is."""
        images, shard = self._images.take(count), self._collective.shard
        largest = min(_LARGEST_BATCH, evaluation_batch(images.image_shape, images.device))
        batches = math.ceil(len(images) / (largest * shard.world))
        # Of even sizes: a last batch of a few images would have no statistics worth the name.
        return math.ceil(len(images) / (batches * shard.world)), shard


def _refits(action: Score | Repair) -> bool:
    """Whether layers are refitted, or tried to be."""
    return isinstance(action, Repair) or criterion_named(action.criterion).sets_up_refits
