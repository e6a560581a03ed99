"""Fine-tunes: the teacher's answers, early stopping, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ice_ray.cache.teacher import Teacher, TeacherCache
from ice_ray.data.images import FixedSample, ImageSet, ImageSource, PruningData
from ice_ray.distributed import Collective
from ice_ray.engine.actions import EarlyStopping, FineTune, FineTuned
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.threshold import Threshold
from ice_ray.engine.work import forward_flops, training_flops
from ice_ray.errors import DivergedError
from ice_ray.objective import accuracy_drop
from ice_ray.pruning.freezing import hold_fixed
from ice_ray.pruning.masking import ZeroKeeper
from ice_ray.training.fine_tune import Recipe, StepCheck, fine_tune
from ice_ray.training.schedules import SCHEDULES


@dataclass(frozen=True)
class EarlyStoppingSample:
    """What early stopping measures inside epochs.

    Attributes:
        early_stopping: how often, and by how much the drop must be below the threshold.
        images: a sample of the validation images.
        original: accuracy of the dense network on them, percent: an easy sample must not end a fine-tune early.
    """

    early_stopping: EarlyStopping
    images: ImageSet
    original: float


class EarlyStopper:
    """The measurements of one fine-tune, and whether they end it.

    Args:
        until: the fine-tune may end once the drop is below it; None measures nothing.
        sample: measured inside epochs; None measures after epochs only.
        validation: the validation images.
        measure: accuracy of the network as it is now, percent.

    Attributes:
        images: number of images measured so far.
        ended_inside: whether a measurement inside an epoch has ended the fine-tune.
    """

    def __init__(
        self,
        until: Threshold | None,
        sample: EarlyStoppingSample | None,
        validation: ImageSource,
        measure: Callable[[ImageSource], float],
    ) -> None:
        self._until, self._sample, self._validation, self._measure = until, sample, validation, measure
        self._last: float | None = None
        self.images = 0
        self.ended_inside = False

    def enough(self) -> bool:
        """Whether to end after this epoch."""
        if self._until is None:
            return False
        self._last = self._accuracy(self._validation)
        return not self._until.reached(self._last)

    @property
    def step_check(self) -> StepCheck | None:
        """What `fine_tune` asks inside epochs."""
        return None if self._sample is None else StepCheck(self._sample.early_stopping.every, self._recovered)

    def final_accuracy(self) -> float | None:
        """Accuracy of the network at the end, percent; None where nothing is measured."""
        # Nothing has been trained since the last measurement only where that was what ended the fine-tune.
        if self._until is not None and (self._last is None or self._until.reached(self._last)):
            self._last = self._accuracy(self._validation)
        return self._last

    def _recovered(self) -> bool:
        assert self._sample is not None
        assert self._until is not None
        few = self._accuracy(self._sample.images)
        drop = accuracy_drop(self._sample.original, few)
        self.ended_inside = drop < self._until.drop - self._sample.early_stopping.margin
        return self.ended_inside

    def _accuracy(self, images: ImageSource) -> float:
        self.images += len(images)
        return self._measure(images)


@dataclass(frozen=True)
class Prepared:
    """What a fine-tune needs that is set up before its clock starts.

    Attributes:
        answers_key: names the teacher's answers to its batches.
        teacher: None where it is not taught.
        sample: what early stopping measures, if anything.
    """

    answers_key: str
    teacher: nn.Module | Teacher | None
    sample: EarlyStoppingSample | None

    @property
    def inherited_seconds(self) -> float:
        """The time that cached answers would have taken: added to the cost of the fine-tune."""
        return self.teacher.inherited_seconds if isinstance(self.teacher, Teacher) else 0.0


class FineTuner:
    """Carries out fine-tunes.

    Args:
        network: the dense network.
        data: images, on the device where they fit.
        recipe: how fine-tunes are done.
        seed: of the run.
        device: where the work is done.
        collective: the processes that work together.
        dense: the network before pruning, in eval mode.
        accuracy: percent of images that a network labels right.

    Attributes:
        teacher_cache: where the teacher's answers are kept for other fine-tunes on the same batches, if anywhere.
        on_losses: told this process's loss of every SGD step of a fine-tune, (steps,) on the device, when it has ended.
    """

    def __init__(
        self,
        network: DenseNetwork,
        data: PruningData,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        collective: Collective,
        dense: Callable[[], nn.Module],
        accuracy: Callable[[nn.Module, ImageSource], float],
    ) -> None:
        self._network, self._data, self._recipe, self._seed = network, data, recipe, seed
        self._device, self._collective, self._dense, self._accuracy = device, collective, dense, accuracy
        self._teacher = network.for_inference(network.build(device)) if recipe.options.distil else None
        self._checking = FixedSample(data.validation, (seed, "checks"))
        self._sample: EarlyStoppingSample | None = None
        self.teacher_cache: TeacherCache | None = None
        self.on_losses: Callable[[Tensor], None] | None = None

    def prepare(self, action: FineTune, root: str) -> Prepared:
        """Set up the teacher and the early stopping. The key of the answers is made of the root and the action's key,
        from which the images, their order and their crops follow.
        """
        key = "-".join(map(str, (root, *action.key)))
        return Prepared(key, self._teacher_of(action, key), self._sample_of(action))

    def run(self, model: nn.Module, action: FineTune, prepared: Prepared) -> tuple[FineTuned, float]:
        """Fine-tune in place; returns what came of it, and the operations spent over all processes, the teacher's
        included.

        Raises:
            DivergedError: the loss became NaN or infinite.
        """
        below = self._network.below(action.frozen) if action.cut else ()
        hold_fixed(model, action.frozen, self._network.norms, (*self._network.unused, *self._network.fixed, *below))
        per_image = training_flops(model, self._network.traces)
        if self._teacher is not None and action.taught:
            per_image += forward_flops(self._teacher, self._network.traces)
        schedule = SCHEDULES[action.schedule] if isinstance(action.schedule, str) else action.schedule
        images = self._data.final if action.final and self._data.final is not None else self._data.train

        def accuracy(images: ImageSource) -> float:
            self._collective.average_buffers(model)
            return self._accuracy(model, images)

        stopper = EarlyStopper(action.until, prepared.sample, self._data.validation, accuracy)
        seen, losses = fine_tune(
            self._collective.wrap(model),
            images,
            self._data.preprocessing,
            self._recipe,
            lambda progress: action.learning_rate * schedule(progress),
            action.epochs,
            (self._seed, *action.key),
            prepared.teacher,
            self._collective.shard,
            stopper.enough,
            stopper.step_check,
            ZeroKeeper(model) if action.sparse else None,
        )
        hold_fixed(model, (), self._network.norms, self._network.fixed)
        if not bool(torch.isfinite(self._collective.sum(losses.sum()))):
            raise DivergedError(f"the training loss became NaN or infinite at learning rate {action.learning_rate:g}")
        if self.on_losses is not None:
            self.on_losses(losses)
        self._collective.settle(model)
        final = stopper.final_accuracy()
        measuring = stopper.images * forward_flops(model, self._network.traces)
        whole = isinstance(action.epochs, int) and not stopper.ended_inside
        epochs = round(seen / len(images), None if whole else 3)
        return FineTuned(epochs, final), per_image * seen + measuring

    def keep_answers(self, prepared: Prepared) -> None:
        """Keep the teacher's new answers for other fine-tunes."""
        if self.teacher_cache is None or not isinstance(prepared.teacher, Teacher):
            return
        answers = prepared.teacher.answers()
        if answers is not None:
            self.teacher_cache.put(prepared.answers_key, answers)

    def warm_up(self, few: ImageSource) -> nn.Module:
        """Train a copy of the dense network on a few images at rate 0, to load libraries; returns it."""
        model = self._network.build(self._device)
        hold_fixed(model, (), self._network.norms, (*self._network.unused, *self._network.fixed))
        wrapped, shard = self._collective.wrap(model), self._collective.shard
        key = (self._seed, "warm-up")
        fine_tune(wrapped, few, self._data.preprocessing, self._recipe, lambda _: 0.0, 1, key, self._teacher, shard)
        return model

    def _teacher_of(self, action: FineTune, key: str) -> nn.Module | Teacher | None:
        if not action.taught:
            return None
        if self._teacher is None or self.teacher_cache is None or action.final:
            return self._teacher
        return Teacher(self._teacher, self.teacher_cache.get(key), self._device)

    def _sample_of(self, action: FineTune) -> EarlyStoppingSample | None:
        if action.early_stopping is None:
            return None
        if self._sample is None or self._sample.early_stopping != action.early_stopping:
            few = self._checking.take(action.early_stopping.images)
            self._sample = EarlyStoppingSample(action.early_stopping, few, self._accuracy(self._dense(), few))
        return self._sample
