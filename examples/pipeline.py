"""A pipeline of your own, with an option of its own: the baseline, fine-tuned after every so many steps.

python jobs/ice_prune.py --pipeline examples.pipeline:EveryFewSteps --every 3 --repair reconstruction
"""

from dataclasses import dataclass, field

from ice_ray.engine.actions import FineTune
from ice_ray.errors import require
from ice_ray.pipelines.baseline import BaselineConfig, BaselinePipeline


@dataclass(frozen=True)
class EveryFewStepsConfig(BaselineConfig):
    """The baseline's options and one more; `--help` shows them all."""

    every: int = 2
    """Steps between two fine-tunes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "every", self.every >= 1, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class EveryFewSteps(BaselinePipeline):
    """What is searched, and the spaces, are the baseline's: the rate of the fine-tunes."""

    Config = EveryFewStepsConfig

    config: EveryFewStepsConfig = field(default_factory=EveryFewStepsConfig)

    def fine_tune_after(self, step: int) -> FineTune | None:
        return super().fine_tune_after(step) if step % self.config.every == 0 else None
