"""The executor: carries out actions on the live network, and prices them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ice_ray.data.batches import Batch, evaluation_batches
from ice_ray.data.images import ImageSource, PruningData
from ice_ray.data.residence import bring, residence
from ice_ray.engine.actions import (
    Action,
    CompareWeights,
    Compensate,
    LayerShares,
    Mask,
    Measure,
    Measured,
    Outcome,
    Prune,
    Recover,
    Recovered,
    Reinitialise,
    Score,
    SnapshotId,
    UnprunedShare,
    WeightNorm,
    next_id,
    root_id,
)
from ice_ray.engine.collective import Alone, Collective
from ice_ray.engine.cost import Cost, Stopwatch, compensation_flops, forward_flops, training_flops
from ice_ray.engine.monitor import DropMonitor, Looks
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.samples import FixedSample
from ice_ray.engine.snapshots import Snapshot, SnapshotStore
from ice_ray.errors import DivergedError, OutOfMemoryError
from ice_ray.models.reinitialise import reinitialise
from ice_ray.pruning.compensation import compensate
from ice_ray.pruning.criteria import ScoringContext, criterion_named
from ice_ray.pruning.freezing import hold_fixed, weight_changes
from ice_ray.pruning.masking import ZeroKeeper, mask_smallest, weight_norm
from ice_ray.pruning.removal import remove_filters, widths_of
from ice_ray.randomness import generator
from ice_ray.training.evaluate import count_correct, evaluation_batch
from ice_ray.training.fine_tune import Recipe, fine_tune
from ice_ray.training.lessons import LessonBook, Teacher
from ice_ray.training.precision import autocast
from ice_ray.training.schedules import SCHEDULES

_CALIBRATION_BATCH = 128


class Executor:
    """Maps (snapshot, action) to an outcome. Every process of a distributed run has one and runs the same actions.

    Args:
        network: the dense network.
        data: images, brought to `device` where they fit.
        recipe: how fine-tunes are done.
        seed: of the run; every random choice is drawn from it and the action's own key.
        device: where the work is done.
        collective: the processes that work together.

    Attributes:
        lessons: where the teacher's answers are kept for other fine-tunes on the same batches; None where there are
            none.
        on_losses: told this process's loss of every SGD step of a fine-tune, (steps,) on the device, when it has ended.

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
        final = bring(data.final, device) if data.final is not None else None
        self._data = PruningData(bring(data.train, device), bring(data.decide, device), data.preprocessing, final)
        self._seed = seed
        self._collective = collective or Alone()
        self._teacher = network.for_inference(network.build(device)) if recipe.distil else None
        self.root: SnapshotId = root_id(self._identity())
        self.lessons: LessonBook | None = None
        self.on_losses: Callable[[Tensor], None] | None = None
        self._live: tuple[SnapshotId, nn.Module] | None = None
        self._calibrating = FixedSample(self._data.train, (seed, "calibration"))
        self._checking = FixedSample(self._data.decide, (seed, "checks"))
        self._looks: Looks | None = None
        self._unpruned: nn.Module | None = None
        self._known: tuple[tuple[SnapshotId, int, int], dict[str, Any]] | None = None

    @property
    def residence(self) -> str:
        """Where the training images live, for people."""
        return residence(self._data.train)

    @property
    def decision_images(self) -> int:
        """How many images decide."""
        return len(self._data.decide)

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
                "out of GPU memory: give each process more of a GPU (--search.gpus) or take a smaller --batch-size"
            ) from error

    def warm_up(self) -> float:
        """Train and measure a copy of the dense network on a few images, so that one-off costs of the libraries
        (loading kernels, first communication) fall on no step's clock. Returns the wall seconds it took.
        """
        watch = Stopwatch(self.device)
        count = min(len(self._data.train), 2 * self.recipe.batch_size)
        few = self._data.train.take(torch.arange(count))
        model = self.network.build(self.device)
        hold_fixed(model, (), self.network.norms, self.network.unused)
        wrapped = self._collective.wrap(model)
        shard, preprocessing = self._collective.shard, self._data.preprocessing
        key = (self._seed, "warm-up")
        fine_tune(wrapped, few, preprocessing, self.recipe, lambda _: 0.0, 1, key, self._teacher, shard)
        self.accuracy(model, few)
        one = torch.eye(2, dtype=torch.float64, device=self.device)
        torch.linalg.solve(one, one)
        return watch.seconds()

    def commit(self, snapshot: SnapshotId) -> Snapshot:
        """Put a snapshot into the store, whence it can be acted on again or saved."""
        model = self._bring(snapshot)
        content = Snapshot(snapshot, widths_of(model, self.network.steps), _on_cpu(model))
        self.store.put(content)
        return content

    def rename_root(self, root: SnapshotId) -> None:
        """Give the dense network the name that it has for others who work together, or one that nobody else has."""
        self.root = root
        self._live = None

    def holds(self, snapshot: SnapshotId) -> bool:
        """Whether the snapshot can be acted on: live, committed or the dense network."""
        return snapshot == self.root or (self._live is not None and self._live[0] == snapshot) or snapshot in self.store

    def module(self, snapshot: SnapshotId) -> nn.Module:
        """The live module of a snapshot; the executor goes on using it, so copy what is to be kept."""
        return self._bring(snapshot)

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
        model = self._bring(snapshot)
        if isinstance(action, (Prune, Mask, Reinitialise, Recover)):
            self._known = None  # of a network that is no more
        self._live = None  # an action that fails half-way leaves no network behind that could be mistaken for one
        teacher = self._teacher_of(action) if isinstance(action, Recover) else None
        looks = self._looks_of(action) if isinstance(action, Recover) else None
        watch = Stopwatch(self.device)
        flops = 0.0
        value: Any = None
        after = snapshot
        match action:
            case Score():
                value = self._score(model, action, snapshot)
                passes = criterion_named(action.criterion).passes
                images = min(action.images, len(self._data.train))
                flops = passes * forward_flops(model, self.network.traces) * images
            case Prune():
                remove_filters(model, self.network.image_shape, dict(action.removed))
                after = next_id(snapshot, action)
            case Mask():
                mask_smallest(model, action.share)
                after = next_id(snapshot, action)
            case Reinitialise():
                reinitialise(model, (self._seed, *action.key))
                after = next_id(snapshot, action)
            case Compensate():
                value, flops = self._compensate(model, action, snapshot)
                after = next_id(snapshot, action)
            case Measure():
                value = self._measure(model, self._data.decide, action)
                flops = forward_flops(model, self.network.traces) * value.images
            case UnprunedShare():
                value = self.network.unpruned_share(model, action.counting)
            case LayerShares():
                value = self.network.layer_shares(model, action.counting)
            case WeightNorm():
                own = torch.tensor(weight_norm(model), dtype=torch.float64, device=self.device)
                value = float(self._collective.agree(own))
            case Recover():
                value, flops = self._recover(model, action, teacher, looks)
                after = next_id(snapshot, action)
            case CompareWeights():
                before = self.store.get(action.since).tensors
                value = weight_changes(before, _on_cpu(model), self.network.freezable, action.change)
        seconds = watch.seconds()
        if isinstance(teacher, Teacher):
            # What it would have taken alone: the answers it was spared are part of its cost.
            seconds += teacher.inherited_seconds
            self._keep_lesson(action, teacher)
        self._live = (after, model)
        return Outcome(after, value, Cost(seconds, flops))

    def _teacher_of(self, action: Recover) -> Callable[[Tensor], Tensor] | None:
        if not action.taught:
            return None
        if self._teacher is None or self.lessons is None or action.final:
            return self._teacher
        return Teacher(self._teacher, self.lessons.get(self._lesson_key(action)), self.device)

    def _keep_lesson(self, action: Action, teacher: Teacher) -> None:
        lesson = teacher.lesson()
        if self.lessons is not None and lesson is not None and isinstance(action, Recover):
            self.lessons.put(self._lesson_key(action), lesson)

    def _lesson_key(self, action: Recover) -> str:
        """The same batches, wherever the root has this name: images, their order and crops follow from these."""
        return "-".join(map(str, (self.root, *action.key)))

    def _bring(self, snapshot: SnapshotId) -> nn.Module:
        if self._live is None or self._live[0] != snapshot:
            self._live = (snapshot, self._rebuild(snapshot))
        return self._live[1]

    def _rebuild(self, snapshot: SnapshotId) -> nn.Module:
        if snapshot == self.root:
            return self.network.build(self.device)
        content = self.store.get(snapshot)
        model = self.network.build_pruned(content.widths, self.device)
        model.load_state_dict(content.tensors)
        return model

    def _score(self, model: nn.Module, action: Score, snapshot: SnapshotId) -> dict[str, Tensor]:
        """Scores on the CPU, rank 0's everywhere: nearly equal ones must not order differently on unlike devices."""
        context = self._context(model, action, snapshot)
        with autocast(self.recipe.precision, self.device):
            scores = criterion_named(action.criterion).score(context)
        if not action.step:
            self._known = None  # of all layers at once: too much to keep
        return {layer: self._collective.agree(each.to(self.device).float()).cpu() for layer, each in scores.items()}

    def _compensate(
        self, model: nn.Module, action: Compensate, snapshot: SnapshotId
    ) -> tuple[dict[str, tuple[float, float]], float]:
        """In place and in full precision; all processes end with the same bits. Errors, and the operations spent."""
        order, removed = [trace.name for trace in self.network.traces], dict(action.removed)
        context = self._context(model, action, snapshot)
        errors = compensate(
            context, action.kind, removed, order, lambda: remove_filters(model, self.network.image_shape, removed)
        )
        self._known = None
        for tensor in model.state_dict().values():  # unlike devices may solve to other last bits
            tensor.copy_(self._collective.agree(tensor))
        per_image = compensation_flops(model, self._dense(), self.network.traces, errors, action.scored)
        return errors, per_image * min(action.images, len(self._data.train))

    def _context(self, model: nn.Module, action: Score | Compensate, snapshot: SnapshotId) -> ScoringContext:
        about = snapshot, action.step, action.images
        if self._known is None or self._known[0] != about:
            self._known = about, {}
        return ScoringContext(
            model=model,
            units=self.network.steps[action.step - 1].units if action.step else self.network.units,
            norms=self.network.norms,
            key=(self._seed, "step", action.step),
            batches=lambda: self._calibration_batches(action.images),
            reduction=self._collective,
            dense=self._dense,
            rank=self._collective.shard.rank,
            known=self._known[1],
        )

    def _dense(self) -> nn.Module:
        """The network before pruning, as it was built: with its batch norms, in eval mode."""
        if self._unpruned is None:
            self._unpruned = self.network.build(self.device)
        return self._unpruned

    def _calibration_batches(self, count: int) -> Iterator[Batch]:
        """This process's share of the images that criteria and repairs look at: the same at every step."""
        images, shard = self._calibrating.take(count), self._collective.shard
        largest = min(_CALIBRATION_BATCH, evaluation_batch(images.image_shape, self.device))
        batches = math.ceil(len(images) / (largest * shard.world))
        # Of even sizes: a last batch of a few images would have no statistics worth the name.
        size = math.ceil(len(images) / (batches * shard.world))
        for batch, labels in evaluation_batches(images, self._data.preprocessing, size, shard):
            if len(labels):
                yield batch, labels

    def _recover(
        self, model: nn.Module, action: Recover, teacher: Callable[[Tensor], Tensor] | None, looks: Looks | None
    ) -> tuple[Recovered, float]:
        """Fine-tune in place; returns what came of it, and the operations spent over all processes, the teacher's
        included.
        """
        below = self.network.below(action.frozen) if action.cut else ()
        hold_fixed(model, action.frozen, self.network.norms, (*self.network.unused, *below))
        per_image = training_flops(model, self.network.traces)
        if self._teacher is not None and action.taught:
            per_image += forward_flops(self._teacher, self.network.traces)
        schedule = SCHEDULES[action.schedule] if isinstance(action.schedule, str) else action.schedule
        images = self._data.final if action.final and self._data.final is not None else self._data.train

        def accuracy(images: ImageSource) -> float:
            self._collective.average_buffers(model)
            return self.accuracy(model, images)

        monitor = DropMonitor(action.until, looks, self._data.decide, accuracy)
        seen, losses = fine_tune(
            self._collective.wrap(model),
            images,
            self._data.preprocessing,
            self.recipe,
            lambda progress: action.learning_rate * schedule(progress),
            action.epochs,
            (self._seed, *action.key),
            teacher,
            self._collective.shard,
            monitor.enough,
            monitor.midway,
            ZeroKeeper(model) if action.sparse else None,
        )
        model.requires_grad_(True)
        if not bool(torch.isfinite(self._collective.sum(losses.sum()))):
            raise DivergedError(_diverged(action.learning_rate))
        if self.on_losses is not None:
            self.on_losses(losses)
        self._collective.settle(model)
        final = monitor.final_accuracy()
        measuring = monitor.images * forward_flops(model, self.network.traces)
        whole = isinstance(action.epochs, int) and not monitor.ended_inside
        epochs = round(seen / len(images), None if whole else 3)
        return Recovered(epochs, final), per_image * seen + measuring

    def _looks_of(self, action: Recover) -> Looks | None:
        """What is looked at inside the fine-tune; the dense network's accuracy on it is on no step's clock."""
        if action.checks is None:
            return None
        if self._looks is None or self._looks.checks != action.checks:
            few = self._checking.take(action.checks.images)
            self._looks = Looks(action.checks, few, self.accuracy(self._dense(), few))
        return self._looks

    def _identity(self) -> dict[str, Any]:
        return {
            "weights": self.network.weights_hash,
            "train": self._data.train.fingerprint(),
            "decide": self._data.decide.fingerprint(),
            "final": self._data.final.fingerprint() if self._data.final is not None else "",
            "preprocessing": repr(self._data.preprocessing),
            "recipe": repr(self.recipe),
            "seed": self._seed,
            "world": self._collective.shard.world,
            "threads": torch.get_num_threads(),
            "device": self.device.type,
            "torch": torch.__version__,
        }


def _diverged(rate: float) -> str:
    return f"the training loss became NaN or infinite at learning rate {rate:g}"


def _on_cpu(model: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in model.state_dict().items()}
