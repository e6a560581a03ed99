"""The operator in a notebook: no Ray, same seed same bits, the user's model untouched."""

import dataclasses

import pytest
import torch
from torch import nn

from ice_ray import IceHyperparameters, prune
from ice_ray.errors import UserError
from ice_ray.pipelines.base import FineTunePlan
from ice_ray.pipelines.settings import PruningSettings
from ice_ray.training.fine_tune import Recipe

HYPERPARAMETERS = IceHyperparameters(1.0, 0.3, 0.02, 5e-3, 0.15, 50)
SETTINGS = PruningSettings(recipe=Recipe(batch_size=64))


def test_same_seed_same_bits_and_the_original_stays(trained, data):
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    first, second = (prune(trained, data, 0.5, HYPERPARAMETERS, settings=SETTINGS, device="cpu") for _ in range(2))
    other = prune(trained, data, 0.5, HYPERPARAMETERS, settings=dataclasses.replace(SETTINGS, seed=1), device="cpu")
    assert all(torch.equal(before[key], value) for key, value in trained.state_dict().items())
    states = [result.model.state_dict() for result in (first, second, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])
    assert first.accuracy == first.records[-1].accuracy
    assert sum(p.numel() for p in first.model.parameters()) < 0.6 * sum(p.numel() for p in trained.parameters())


def test_dropout_repeats_too(trained, data):
    """Its draws come from the step's own key, whatever was drawn before."""
    model = nn.Sequential(trained, nn.Dropout(0.5))
    results = []
    for _ in range(2):
        torch.randn(100)
        results.append(prune(model, data, 0.5, HYPERPARAMETERS, settings=SETTINGS, device="cpu").model.state_dict())
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


@pytest.mark.parametrize("what", ["train", "final"])
def test_an_epoch_without_a_step_is_refused_before_anything_is_done(trained, data, what):
    begun = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: begun.append(module.training))
    twice = dataclasses.replace(SETTINGS, fine_tune=FineTunePlan(final_epochs=1))
    few = dataclasses.replace(data, **{what: data.train.take(torch.arange(1))})
    with pytest.raises(UserError, match="1 training image"):
        prune(trained, few, 0.5, HYPERPARAMETERS, settings=twice, device="cpu")
    handle.remove()
    assert not any(begun)  # no network was trained


def test_final_epochs_are_measured_again(trained, data):
    twice = dataclasses.replace(SETTINGS, fine_tune=FineTunePlan(final_epochs=2))
    result = prune(trained, data, 0.5, HYPERPARAMETERS, settings=twice, device="cpu")
    assert result.accuracy > 50
    assert len(result.records) == 3
