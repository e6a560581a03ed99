"""What looks at calibration images: scores of filters, and repairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from ice_ray.cache.activations import ActivationCache
from ice_ray.data.batches import Batch
from ice_ray.data.images import FixedSample, PruningData
from ice_ray.distributed import Collective
from ice_ray.engine.actions import Repair, Score, SnapshotId
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.work import forward_flops, refit_flops
from ice_ray.models.partial_forward import Followed
from ice_ray.models.resume import Activations, ResumePoint
from ice_ray.models.trace import LayerTrace
from ice_ray.models.units import Kept
from ice_ray.pruning.criteria import ScoringContext, criterion_named
from ice_ray.pruning.removal import remove_filters
from ice_ray.repair.calibration_images import CalibrationImages
from ice_ray.repair.context import RepairContext, Structure
from ice_ray.repair.reconstruction import PARTS
from ice_ray.repair.repair import Repaired, repair
from ice_ray.repair.step_problems import StepProblems
from ice_ray.training.config import Precision
from ice_ray.training.precision import autocast

_FLOAT_BYTES = 4
MOST_BYTES = 256 * 2**20
"""Of activations that a process holds for a network between two steps, and as much of those of mirrored images: more
are computed again in every pass.
"""


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
        self._problems: tuple[tuple[SnapshotId, int, int], StepProblems] | None = None
        # In the network as it stands and in the dense one; of the images as they are, and of mirrored ones.
        self._activation_caches = {key: ActivationCache() for key in itertools.product((False, True), repeat=2)}

    def forget(self) -> None:
        """What is known is of a network that is no more. Of the dense one, too, nothing is held: others need memory."""
        self._problems = None
        for cache in self._activation_caches.values():
            cache.forget()

    def context(self, model: nn.Module, kept: Kept, action: Score | Repair, snapshot: SnapshotId) -> RepairContext:
        """What an action looks at. What it has to know of the network's structure is found the first time anybody asks:
        no cost of any action.

        Args:
            kept: by layer that owns filters, which of the dense network's the model has.
        """
        network, step = self._network, action.step
        units, followed = network.steps[step - 1].units if step else network.units, dict[str, Followed]()
        if isinstance(action, Repair) or criterion_named(action.criterion).problems(units):
            followed, _ = network.followed, (network.resume_points, network.inner_resume_points)
        is_last = isinstance(action, Repair) and step == len(network.steps)
        structure = Structure(
            [trace.name for trace in network.traces],
            network.norms,
            residual_branches=[layer for layer, own in followed.items() if own.is_term],
            activations={layer: own.activation for layer, own in followed.items() if own.activation is not None},
            answers=network.answers if is_last else None,
            step_ends=network.step_ends if is_last else (),
            fixed=network.fixed_layers,
            units=network.units,
            positions={trace.name: trace.positions for trace in network.traces},
        )
        held, shard = self._activations(model, action, snapshot), self._collective.shard
        points = self._inner_points(action) if any(unit.is_spread for unit in units) else {}
        images = CalibrationImages(self._images, action.images, self._data.preprocessing, shard, held, points)
        key = (self._seed, "step", step)
        return RepairContext(model, self._dense, units, structure, images, self._collective, key, kept)

    def score(self, action: Score, context: RepairContext, snapshot: SnapshotId) -> tuple[dict[str, Tensor], float]:
        """Scores on the CPU, rank 0's everywhere: nearly equal ones must not order differently on unlike devices.
        Filters that must stay have infinite ones. And the operations spent.
        """
        criterion, problems = criterion_named(action.criterion), self._problems_of(action, snapshot)
        scoring = ScoringContext.of(context, problems, criterion.problems(context.units))
        with autocast(self._precision, self._data.train.device):
            scores = criterion.score(scoring)
        if not action.step:
            self._problems = None  # of all layers at once: too much to keep
        device = self._data.train.device
        agreed = {layer: self._collective.agree(each.to(device).float()).cpu() for layer, each in scores.items()}
        for unit in context.units:
            stays = [place for place, index in enumerate(context.kept[unit.layer]) if index in unit.fixed]
            agreed[unit.layer][stays] = torch.inf
        per_image = criterion.passes * forward_flops(context.model, self._network.traces)
        if scoring.problems:
            per_image += self._refit_flops(context, action, [*problems.ready(context), *scoring.problems])
        return agreed, per_image * min(action.images, len(self._data.train))

    def repair(
        self, action: Repair, context: RepairContext, snapshot: SnapshotId, after: SnapshotId
    ) -> tuple[Repaired, float]:
        """Remove and repair, in place and in full precision; all processes end with the same bits. What has come of
        it, and the operations spent: without those that the scores which have chosen the filters were charged with,
        whether they were computed here or elsewhere.

        Args:
            after: the snapshot that this leads to.
        """
        model, removed = context.model, dict(action.removed)
        problems = self._problems_of(action, snapshot)
        repaired = repair(
            context,
            problems,
            action.kind,
            removed,
            lambda: remove_filters(model, self._network.image_shape, removed),
            action.epochs,
            action.together,
        )
        self._problems = None
        for mirrored in (False, True):
            own = self._activation_caches[False, mirrored]
            if repaired.together:  # layers before the step have changed
                own.forget()
            cut = [owner for unit in context.units if unit.layer in removed for owner in unit.owners]
            own.rename((snapshot, action.images), (after, action.images), cut)
        for tensor in model.state_dict().values():  # unlike devices may solve to other last bits
            tensor.copy_(self._collective.agree(tensor))
        was_charged = action.criterion is not None and bool(criterion_named(action.criterion).problems(context.units))
        set_up = [*(() if was_charged else repaired.set_up_before), *repaired.set_up_after]
        per_image = self._refit_flops(context, action, set_up)
        if repaired.norms_estimated:
            per_image += forward_flops(model, self._run_through(action))
        if repaired.reconstructed:
            per_image += self._reconstruction_flops(model, action, repaired, context.images)
        if repaired.together:
            per_image += self._together_flops(model, action, repaired.together_held, context.images)
        return repaired, per_image * min(action.images, len(self._data.train))

    def _problems_of(self, action: Score | Repair, snapshot: SnapshotId) -> StepProblems:
        about = snapshot, action.step, action.images
        if self._problems is None or self._problems[0] != about:
            self._problems = about, StepProblems()
        return self._problems[1]

    def _refit_flops(self, context: RepairContext, action: Score | Repair, layers: Iterable[str]) -> float:
        """Of one calibration image: what it takes to set up these layers' problems. In a step that reaches beyond a
        block passes begin shortly before each, and are moved on as far as the last.
        """
        model, dense, asked = context.model, self._dense(), list(layers)
        if not context.is_spread:
            return sum(refit_flops(model, dense, self._run_through(action), layer) for layer in asked)
        return sum(
            (refit_flops(model, dense, self._from(action, layer), layer) for layer in asked),
            start=self._moving_flops(model, action, asked),
        )

    def _moving_flops(self, model: nn.Module, action: Score | Repair, layers: Sequence[str]) -> float:
        """Of one calibration image: what it takes in both networks to come to where passes begin for the last of the
        layers.
        """
        behind = {trace.name for layer in layers[-1:] for trace in self._from(action, layer)}
        passed = [trace for trace in self._run_through(action) if trace.name not in behind]
        return sum(forward_flops(network, passed) for network in (model, self._dense()))

    def _from(self, action: Score | Repair, layer: str) -> list[LayerTrace]:
        """What passes run through in a step that reaches beyond a block when they are to come to a layer."""
        point = self._inner_points(action).get(layer)
        return [trace for trace in self._network.traces if point is None or not point.is_behind(trace.name)]

    def _reconstruction_flops(
        self, model: nn.Module, action: Repair, repaired: Repaired, images: CalibrationImages
    ) -> float:
        """Of one calibration image: passes that measure what is left, before and on the way, where it judges; else per
        epoch one and, from the step's first layer on, the way back, which takes twice as long. The dense network's once
        for each view of it, where that is held. Mirrored ones come from where the step before began, as the others have
        for the refit.
        """
        views, epochs, passes = images.views, *_passes(images, action.epochs)
        units = self._network.steps[action.step - 1].units
        is_spread = any(unit.is_spread for unit in units)
        point = self._resume_point(action.step, action.images)
        behind = [each for each in self._network.traces if point is None or not point.is_behind(each.name)]
        total = 0.0
        for layers in repaired.trained:
            traces = self._from(action, layers[0]) if is_spread else behind
            first, *_, last = (number for number, each in enumerate(traces) if each.name in layers)
            passed, trained = traces[: last + 1], traces[first : last + 1]
            dense = forward_flops(self._dense(), passed) * (views if repaired.targets_held else views + passes)
            total += dense + passes * forward_flops(model, passed) + 2 * epochs * forward_flops(model, trained)
        if is_spread:
            return total + (views - 1) * self._moving_flops(model, action, [each[0] for each in repaired.trained])
        own = [trace for trace in self._run_through(action) if point is not None and point.is_behind(trace.name)]
        return total + (views - 1) * (forward_flops(self._dense(), own) + forward_flops(model, own))

    def _together_flops(self, model: nn.Module, action: Repair, is_held: bool, images: CalibrationImages) -> float:
        """Of one calibration image: whole passes, as in a reconstruction."""
        views, epochs, passes = images.views, *_passes(images, action.together)
        dense = forward_flops(self._dense(), self._network.traces) * (views if is_held else views + passes)
        return dense + (passes + 2 * epochs) * forward_flops(model, self._network.traces)

    def _activations(
        self, model: nn.Module, action: Score | Repair, snapshot: SnapshotId
    ) -> Callable[[nn.Module, Iterable[Batch], bool], Sequence[Activations] | None]:
        """Of the batches in a step's network and in the dense one, where the step begins; None if too much to hold."""

        def activations(network: nn.Module, batches: Iterable[Batch], mirrored: bool) -> Sequence[Activations] | None:
            point = self._resume_point(action.step, action.images)
            if point is None:
                return None
            cache = self._activation_caches[network is not model, mirrored]
            return cache.at(point, network, (snapshot, action.images) if network is model else action.images, batches)

        return activations

    def _resume_point(self, step: int, images: int) -> ResumePoint | None:
        """Where passes of a step begin, if what stands there may be held."""
        point = self._network.resume_points.get(step)
        return point if point is not None and self._may_be_held(point, images) else None

    def _inner_points(self, action: Score | Repair) -> dict[str, ResumePoint]:
        """By layer, where passes may begin in a step that reaches beyond a block."""
        points = self._network.inner_resume_points
        return {layer: point for layer, point in points.items() if self._may_be_held(point, action.images)}

    def _may_be_held(self, point: ResumePoint, images: int) -> bool:
        own = math.ceil(min(images, len(self._data.train)) / self._collective.shard.world)
        return point.size * own * _FLOAT_BYTES <= MOST_BYTES

    def _run_through(self, action: Score | Repair) -> list[LayerTrace]:
        """What passes of a step's network run through at most: from the resume point of the step before, whence the
        activations are moved on, as where no fine-tune has come between.
        """
        before, own = (self._resume_point(step, action.images) for step in (action.step - 1, action.step))
        if before is None or own is None or not own.follows(before):
            return list(self._network.traces)
        return [trace for trace in self._network.traces if not before.is_behind(trace.name)]


def _passes(images: CalibrationImages, epochs: float) -> tuple[float, float]:
    """Of one calibration image, on the average: passes that it is trained on in, and all."""
    judges = float(images.judges.double().mean())
    trained = (1 - judges) * epochs
    return trained, trained + (1 + len(PARTS)) * judges
