"""Runs of ICE-Pruning on digits, and what their records say."""

from typing import Any

from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.pipelines.ice import IcePipeline
from ice_ray.pipelines.records import PipelineState, Preparation
from ice_ray.pipelines.removal_choice import RemovalRule
from ice_ray.pruning.amounts import Amounts

RULE = RemovalRule(Amounts(0.5))


def hyperparameters(threshold: float = 3.0) -> IceHyperparameters:
    return IceHyperparameters(threshold, 0.5, 0.02, 5e-3, 0.15, 50)


def ice(threshold: float = 3.0, rule: RemovalRule = RULE, **options: Any) -> IcePipeline:
    return IcePipeline(removal=rule, hyperparameters=hyperparameters(threshold), **options)


def run(executor: TorchExecutor, pipeline: IcePipeline, preparation: Preparation) -> list[PipelineState]:
    states = [pipeline.begin(executor)]
    while not pipeline.is_done(executor, states[-1]):
        states.append(pipeline.advance(executor, states[-1], preparation))
        executor.commit(states[-1].snapshot)
    return states


def decisions(state: PipelineState) -> list[tuple[object, ...]]:
    """Everything in the records but seconds."""
    return [tuple(v for k, v in record.as_dict().items() if not k.endswith("seconds")) for record in state.records]
