"""Runs of ICE-Pruning on digits, and what their records say."""

from pathlib import Path
from typing import Any

from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.pipelines.ice import IceConfig, IcePipeline
from ice_ray.pipelines.records import PipelineState, Preparation

DIGITS = str(Path(__file__).with_name("digits.yaml"))
"""A grid that fine-tunes."""

PAPER = {"repair": "none", "criterion": "l1", "calibration_images": 1000, "decision_error": 0.0}
"""The options of the authors' program where the defaults are others."""


def paper(**options: Any) -> IceConfig:
    return IceConfig(**(PAPER | options))


def hyperparameters(threshold: float = 3.0) -> IceHyperparameters:
    return IceHyperparameters(threshold, 0.5, 0.02, 5e-3, 0.15, 50)


def ice(theta: float = 3.0, point: IceHyperparameters | None = None, **options: Any) -> IcePipeline:
    return IcePipeline(config=paper(**options), hyperparameters=point or hyperparameters(theta))


def prepared(executor: TorchExecutor, probes: bool = True, **options: Any) -> Preparation:
    return ice(**options).prepare(executor, probes)


def run(executor: TorchExecutor, pipeline: IcePipeline, preparation: Preparation) -> list[PipelineState]:
    states = [pipeline.begin(executor)]
    while not pipeline.is_done(executor, states[-1]):
        states.append(pipeline.advance(executor, states[-1], preparation))
        executor.commit(states[-1].snapshot)
    return states


def decisions(state: PipelineState) -> list[tuple[object, ...]]:
    """Everything in the records but seconds."""
    return [tuple(v for k, v in record.as_dict().items() if not k.endswith("seconds")) for record in state.records]
