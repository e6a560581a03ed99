"""The operator in a notebook: no Ray, same seed same bits, the user's model untouched."""

import dataclasses

import pytest
import torch
from ice_runs import PAPER
from torch import nn

from ice_ray import IceHyperparameters, prune
from ice_ray.errors import UserError
from ice_ray.pipelines.base import FinalConfig
from ice_ray.pipelines.baseline import BaselineConfig
from ice_ray.pipelines.ice import IceConfig
from ice_ray.pruning.config import LayerwisePruneConfig
from ice_ray.training.config import FineTuneConfig

HYPERPARAMETERS = IceHyperparameters(1.0, 0.3, 0.02, 5e-3, 0.15, 50)
OPTIONS = PAPER | {"batch_size": 64}


def test_same_seed_same_bits_and_the_original_stays(trained, data):
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    first, second = (
        prune(trained, data, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="cpu", **OPTIONS) for _ in range(2)
    )
    other = prune(trained, data, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="cpu", seed=1, **OPTIONS)
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
        results.append(
            prune(model, data, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="cpu", **OPTIONS).model.state_dict()
        )
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


@pytest.mark.parametrize("what", ["train", "final"])
def test_an_epoch_without_a_step_is_refused_before_anything_is_done(trained, data, what):
    begun = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: begun.append(module.training))
    few = dataclasses.replace(data, **{what: data.train.take(torch.arange(1))})
    with pytest.raises(UserError, match="1 training image"):
        prune(
            trained,
            few,
            ratio=0.5,
            hyperparameters=HYPERPARAMETERS,
            device="cpu",
            final=FinalConfig(epochs=1),
            **OPTIONS,
        )
    handle.remove()
    assert not any(begun)  # no network was trained


def test_final_epochs_are_measured_again(trained, data):
    result = prune(
        trained, data, ratio=0.5, hyperparameters=HYPERPARAMETERS, device="cpu", final=FinalConfig(epochs=2), **OPTIONS
    )
    assert result.accuracy > 50
    assert len(result.records) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"criterium": "l1"}, "pipeline ice has no option 'criterium' \\(nearest: criterion"),
        ({"repair": "reconstruct"}, "repair='reconstruct': Input should be 'none', 'bn'"),
        ({"fine_tune": FineTuneConfig()}, "fine_tune=FineTuneConfig"),
        ({"calibration_images": "many"}, "calibration_images='many': Input should be a valid integer"),
        ({"config": BaselineConfig()}, "config of pipeline ice must be of IceConfig, not BaselineConfig"),
        ({"config": {"ratio": 0.5}}, "config of pipeline ice must be of IceConfig, not dict"),
        ({"config": IceConfig(repair="foo")}, "repair='foo': Input should be"),
        ({"calibration_images": 0}, "calibration_images 0 must be at least 1"),
        ({"pipeline": "imp", "repair": "bn"}, "pipeline imp has no option 'repair'"),
        (
            {"pipeline": "imp"},
            "pipeline imp needs hyperparameters: ImpHyperparameters\\(phases, epochs, learning_rate\\)",
        ),
        ({"pipeline": "ice-plus"}, "unknown pipeline 'ice-plus'"),
    ],
)
def test_keywords_that_are_no_options(trained, data, options, said):
    with pytest.raises(UserError, match=said):
        prune(trained, data, ratio=0.5, device="cpu", **options)


def test_by_default_steps_are_repaired_and_none_is_fine_tuned(trained, data):
    result = prune(trained, data, ratio=0.5, device="cpu", batch_size=64)
    assert not any(record.fine_tuned for record in result.records)
    assert all(record.repair_seconds > 0 for record in result.records)
    assert [record.images_measured for record in result.records] == [200] * 3
    assert result.accuracy == result.records[-1].accuracy > 80


@pytest.mark.parametrize("words", [{"ratios": "a=0.3"}, {"include": "layer1"}, {"ratios": {"a": 0.3}}])
def test_one_word_is_not_taken_for_its_letters(words):
    with pytest.raises(UserError, match="must be a tuple of words"):
        LayerwisePruneConfig(**words)


def test_a_group_of_options_may_be_given_as_a_mapping(trained, data):
    result = prune(trained, data, ratio=0.5, device="cpu", final={"epochs": 1, "rate": 0.01}, batch_size=64)
    assert len(result.records) == 3
