"""Training that made a network worse is found in the records, and named with what its rate comes from."""

import pytest

from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.pipelines.base import FinalConfig
from ice_ray.pipelines.baseline import BaselineHyperparameters
from ice_ray.pipelines.harm import harm_of, harms_of
from ice_ray.pipelines.records import FINAL_RETRAINING, StepRecord


def trained(
    step: int, before: float | None, after: float, layers: str = "conv", images: int = 500, tuned: bool = True
) -> StepRecord:
    return StepRecord(
        step=step,
        layers=layers,
        unpruned_share=0.5,
        accuracy_before=99.0,
        accuracy_after_pruning=before,
        accuracy=after,
        drop=99.0 - after,
        images_measured=images,
        fine_tuned=tuned,
        learning_rate_max=0.3 if tuned else None,
    )


def test_the_worst_of_all_is_told_with_the_hyperparameter_that_set_its_rate():
    records = [trained(1, 90.0, 95.0), trained(2, 94.0, 80.0), trained(3, 80.0, 21.0), trained(4, 21.0, 20.5)]
    assert str(harm_of(records, IceHyperparameters)) == (
        "the fine-tune after step 3 at a learning rate of 0.3 took the accuracy from 80.00% down to 21.00%: "
        "base_learning_rate is probably too high"
    )
    retrained = harm_of([*records[:1], trained(2, 95.0, 30.0, FINAL_RETRAINING)], BaselineHyperparameters)
    assert retrained is not None
    assert retrained.for_jobs.startswith("the retraining at a learning rate of 0.3 took")
    assert retrained.for_jobs.endswith("final_learning_rate is probably too high (--space)")


@pytest.mark.parametrize(
    "record",
    [
        trained(1, 90.0, 95.0),
        trained(1, 99.3, 97.8, images=270),  # less than 2 points
        trained(1, 90.0, 80.0, images=20),  # two images
        trained(1, None, 20.0),  # nobody measured before the training
        trained(1, 90.0, 80.0, images=0),
        trained(1, 90.0, 20.0, tuned=False),
    ],
)
def test_what_chance_the_removal_or_nobody_knows_has_done_is_not_blamed(record):
    assert harm_of([record], IceHyperparameters) is None


def test_final_epochs_are_judged_by_the_network_that_came_out():
    steps = [trained(1, 90.0, 90.0, tuned=False)]
    (harm,) = harms_of(steps, IceHyperparameters, FinalConfig(epochs=2, rate=9.0), 40.0, 500)
    assert harm.for_jobs.endswith("from 90.00% down to 40.00%: final.rate is probably too high (--final.rate)")
    (harm,) = harms_of(steps, IceHyperparameters, FinalConfig(epochs=2), 40.0, 500)
    assert harm.option == "--final.rate-factor"
    assert harms_of(steps, IceHyperparameters, FinalConfig(), 40.0, 500) == []
    assert harms_of(steps, IceHyperparameters, FinalConfig(epochs=2), 89.0, 500) == []
