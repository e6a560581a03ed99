"""Whether training has left a network worse than it found it: then the learning rate was most often too high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ice_ray.hyperparameters import Hyperparameters
from ice_ray.pipelines.base import FinalConfig
from ice_ray.pipelines.records import FINAL_RETRAINING, StepRecord

_POINTS, _STANDARD_ERRORS = 2.0, 3


@dataclass(frozen=True)
class Harm:
    """A fine-tune or a retraining after which the network is clearly worse than before.

    Attributes:
        what: which one, for people.
        before, after: accuracies on the validation images, percent.
        setting: the hyperparameter, or the field of options, that its learning rate comes from.
        option: that gives it to a job.
    """

    what: str
    before: float
    after: float
    setting: str
    option: str = "--space"

    def __str__(self) -> str:
        fall = f"from {self.before:.2f}% down to {self.after:.2f}%"
        return f"{self.what} took the accuracy {fall}: {self.setting} is probably too high"

    @property
    def for_jobs(self) -> str:
        """The same, with the option."""
        return f"{self} ({self.option})"


def harm_of(records: Sequence[StepRecord], kind: type[Hyperparameters] | None) -> Harm | None:
    """The worst that training has done in a run; None where it has made nothing clearly worse, or nobody measured
    before it.

    Args:
        records: of the run.
        kind: of its hyperparameters, one of which set the rate.
    """
    trained = [record for record in records if record.fine_tuned and record.accuracy_after_pruning is not None]
    falls = [(record.accuracy_after_pruning or 0.0, record) for record in trained]
    worse = [(before, record) for before, record in falls if is_worse(before, record.accuracy, record.images_measured)]
    if not worse:
        return None
    before, record = max(worse, key=lambda fall: fall[0] - fall[1].accuracy)
    retrained = record.layers == FINAL_RETRAINING
    what = "the retraining" if retrained else f"the fine-tune after step {record.step}"
    what += "" if record.learning_rate_max is None else f" at a learning rate of {record.learning_rate_max:.3g}"
    setting = "final_learning_rate" if retrained else _rate_of_steps(kind)
    return Harm(what, before, record.accuracy, setting)


def harms_of(
    records: Sequence[StepRecord], kind: type[Hyperparameters] | None, final: FinalConfig, accuracy: float, images: int
) -> list[Harm]:
    """The worst of the records' training, and that of the final epochs, of which there is no record.

    Args:
        records, kind: as for `harm_of`.
        accuracy: of the network that came out, percent.
        images: validation images.
    """
    own, before = harm_of(records, kind), records[-1].accuracy
    found = [] if own is None else [own]
    if final.epochs and is_worse(before, accuracy, images):
        field = "rate_factor" if final.rate is None else "rate"
        option = f"--final.{field.replace('_', '-')}"
        found.append(Harm("the final epochs", before, accuracy, f"final.{field}", option))
    return found


def is_worse(before: float, after: float, images: int) -> bool:
    """Whether an accuracy is clearly below another one: by 2 points, and by three standard errors of the difference
    between two samples of so many images.

    >>> is_worse(97.0, 31.0, 100), is_worse(99.3, 97.8, 270), is_worse(50.0, 40.0, 20), is_worse(76.0, 73.0, 50000)
    (True, False, False, True)
    """
    if not images:
        return False
    error: float = 100 * (sum(share * (1 - share) for share in (before / 100, after / 100)) / images) ** 0.5
    return before - after > max(_POINTS, _STANDARD_ERRORS * error)


def _rate_of_steps(kind: type[Hyperparameters] | None) -> str:
    names = () if kind is None else kind.names()
    own = (name for name in names if name.endswith("learning_rate") and name != "final_learning_rate")
    return next(own, "its learning rate")
