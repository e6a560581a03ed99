"""The operator in this process: no Ray, same seed same bits, the user's model untouched."""

import dataclasses
import warnings
from contextlib import contextmanager

import pytest
import torch
from ice_runs import PAPER
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ice_ray
from ice_ray import (
    AapHyperparameters,
    IceHyperparameters,
    ImageSet,
    ImpHyperparameters,
    Preprocessing,
    PruningData,
    Result,
    StepRecord,
    prune,
)
from ice_ray.errors import UserError
from ice_ray.models.registry import ModelSpec
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
        ({"calibration_images": "many"}, "calibration_images='many' must be a number"),
        ({"config": BaselineConfig()}, "config of pipeline ice must be of IceConfig, not BaselineConfig"),
        ({"config": {"ratio": 0.5}}, "config of pipeline ice must be of IceConfig, not dict"),
        ({"config": IceConfig(repair="foo")}, "repair='foo': Input should be"),
        ({"calibration_images": 0}, "calibration_images 0 must be at least 1"),
        (
            {"pipeline": "one-shot"},
            r"pipeline one-shot needs hyperparameters=OneShotHyperparameters\(final_epochs=\.\.\., final_learning_rate="
            r"\.\.\.\): hyperparameter final_epochs=0 must be above 0",
        ),
        ({"pipeline": "imp", "repair": "bn"}, "pipeline imp has no option 'repair'"),
        (
            {"pipeline": "imp"},
            "pipeline imp needs hyperparameters: ImpHyperparameters\\(phases, epochs, learning_rate\\)",
        ),
        ({"pipeline": "ice-plus"}, "pipeline 'ice-plus' is now ice, the default"),
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


class Grey(nn.Module):
    """A residual and a gate over images of one channel, of any height and width."""

    def __init__(self, channels: int = 1, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.inner, self.outer = nn.Conv2d(width, 2 * width, 3, padding=1), nn.Conv2d(2 * width, width, 3, padding=1)
        self.gate, self.head = nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, images):
        x = self.stem(images)
        x = x + self.outer(self.inner(x).relu())
        x = x * self.gate(x.mean((2, 3))).sigmoid()[:, :, None, None]
        return self.head(x.mean((2, 3)))


def told_apart(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Labels that the model gives, so that it is right on all of them."""
    with torch.inference_mode():
        return model.eval()(images).argmax(1)


@pytest.mark.parametrize("shape", [(1, 12, 12), (1, 9, 20), (2, 16, 8), (5, 8, 8)])
def test_a_loader_of_floats_of_any_shape(shape):
    torch.manual_seed(0)
    model, images = Grey(shape[0]), torch.randn(96, *shape)
    labels = told_apart(model, images)
    train, val = (TensorDataset(images[part], labels[part]) for part in (slice(0, 64), slice(64, 96)))
    point = IceHyperparameters(0.0, 0.0, 0.02, 5e-3, 0.15, 50)
    own = {"hyperparameters": point, "target": "macs=0.6", "allocate": "uniform", "device": "cpu"}
    by_loader = prune(model, DataLoader(train, batch_size=16), DataLoader(val), **own)
    assert by_loader.original_accuracy == 100
    assert 0.5 < by_loader.macs / by_loader.original_macs <= 0.6
    assert by_loader.image_shape == shape
    held = [ImageSet(part.tensors[0].permute(0, 2, 3, 1).contiguous(), part.tensors[1]) for part in (train, val)]
    ratio = by_loader.description["config"]["ratio"]
    by_hand = prune(model, PruningData(*held), ratio=ratio, hyperparameters=point, device="cpu")
    states = [result.model.state_dict() for result in (by_loader, by_hand)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert decided(by_loader) == decided(by_hand)


def decided(result: Result) -> list[tuple[object, ...]]:
    """Everything in the records but seconds."""
    return [tuple(v for k, v in each.as_dict().items() if not k.endswith("seconds")) for each in result.records]


def test_uint8_is_normalised_whichever_way_it_comes(trained, data):
    own = {"ratio": 0.5, "device": "cpu", "batch_size": 64, "repair": "bn"}
    pairs = [(images.images.permute(0, 3, 1, 2), images.labels) for images in (data.train, data.validation)]
    first = prune(trained, data, **own)
    second = prune(trained, *pairs, preprocessing=data.preprocessing, **own)
    third = prune(
        trained, *(DataLoader(TensorDataset(*pair)) for pair in pairs), preprocessing=data.preprocessing, **own
    )
    states = [result.model.state_dict() for result in (first, second, third)]
    assert all(torch.equal(states[0][key], state[key]) for state in states[1:] for key in states[0])
    assert first.accuracy == second.accuracy == third.accuracy > 80


def test_a_uniform_target_takes_the_ratio_that_inspect_shows(trained, data):
    seen = ice_ray.inspect(trained, (3, 8, 8), target="params=0.5")
    own = {"device": "cpu", "batch_size": 64, "repair": "none", "criterion": "l1", "allocate": "uniform"}
    result = prune(trained, data, target="params=0.5", **own)
    assert result.description["config"]["ratio"] == seen.ratio
    assert result.parameters == seen.pruned["parameters"]
    assert result.macs == seen.pruned["multiply_adds"]
    assert result.parameters / result.original_parameters <= 0.5


def test_the_callback_sees_every_step_and_the_bar_says_where_it_is(trained, data, capsys):
    seen = []
    point = IceHyperparameters(final_epochs=0.5, final_learning_rate=0.01)
    own = {"ratio": 0.5, "hyperparameters": point, "device": "cpu", "batch_size": 64, "repair": "bn"}
    result = prune(trained, data, progress=True, callback=seen.append, **own)
    assert tuple(seen) == result.records
    assert len(seen) == 4  # three steps, and the retraining
    shown = capsys.readouterr().err
    for record in seen:
        assert f"{record.layers}: " in shown
        assert f"accuracy={record.accuracy:.2f}%, drop={record.drop:.2f}" in shown
    assert "4/4" in shown
    prune(trained, data, **own)  # standard error is no terminal here
    prune(trained, data, progress=False, **own)
    assert "step" not in capsys.readouterr().err


def test_an_interruption_leaves_nothing_behind(trained, data, capsys):
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    modes = [module.training for module in trained.modules()]
    drawn = torch.get_rng_state()

    def press(record: StepRecord) -> None:
        if record.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(trained, data, ratio=0.5, device="cpu", batch_size=64, repair="bn", progress=True, callback=press)
    assert all(torch.equal(before[key], value) for key, value in trained.state_dict().items())
    assert [module.training for module in trained.modules()] == modes
    assert torch.equal(torch.get_rng_state(), drawn)
    assert capsys.readouterr().err.endswith("\n")  # the bar is closed: what follows has a line of its own


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"seed": "a"}, "seed='a' must be a whole number"),
        ({"seed": 0.5}, r"seed=0\.5 must be a whole number"),
        ({"seed": True}, "seed=True must be a whole number"),
        ({"seed": None}, "seed=None must be a whole number"),
        ({"batch_size": "8"}, "batch_size='8' must be a whole number"),
        ({"batch_size": 1}, "batch_size 1 must be at least 2"),
        ({"device": 3.5}, r"device=3\.5 is none that torch knows"),
        ({"device": "gpu"}, "device='gpu' is none that torch knows"),
        ({"device": "xla"}, "device='xla': torch cannot calculate on it here"),
        ({"device": "meta"}, "device='meta': torch cannot calculate on it here"),
        ({"pipeline": None}, "pipeline=None must be a name"),
        ({"pipeline": IceConfig}, "pipeline=.* must be a name"),
        ({"target": "half"}, "target 'half' must be macs=, params=, latency= or onnx-latency="),
        ({"target": "flops=0.5"}, "target 'flops=0.5' must be"),
        ({"target": 0.5}, r"target=0\.5 must be words"),
        ({"target": "macs=0.01"}, r"target macs=0\.01 is out of reach"),
        ({"target": "macs=0.5", "ratio": 0.5}, "ratio and target both say how much to prune"),
        ({"target": "macs=0.5", "pipeline": "aap", "hyperparameters": AapHyperparameters(1, 1, 0.1)}, "takes ratio"),
        ({"ratio": "half"}, "ratio='half' must be a number"),
        ({"ratio": "0.5"}, r"ratio='0\.5' must be a number"),
        ({"ratio": True}, "ratio=True must be a number"),
        ({"calibration_images": "100"}, "calibration_images='100' must be a number"),
        ({"threshold": "yes"}, "threshold='yes' must be True or False"),
        ({"final": {"epochs": "1"}}, r"final\.epochs='1' must be a number"),
        ({"ratio": 1.5}, r"ratio 1\.5 must be a number inside \(0, 1\)"),
        ({"precision": 16}, "precision '16' is none of auto"),
        ({"hyperparameters": {"theta": 1}}, "hyperparameters of pipeline ice must be IceHyperparameters, not dict"),
        ({"hyperparameters": ImpHyperparameters(1, 1, 0.1)}, "must be IceHyperparameters, not ImpHyperparameters"),
        ({"preprocessing": "imagenet"}, "preprocessing='imagenet' must be a Preprocessing"),
        ({"preprocessing": Preprocessing((0.5,), (0.5,))}, "mean and std have 1 value"),
        ({"progress": "yes"}, "progress='yes' must be True, False or None"),
        ({"progress": 1}, "progress=1 must be True, False or None"),
        ({"callback": "print"}, "callback='print' must be a function"),
        ({"batchsize": 8}, "no option 'batchsize' \\(nearest: batch_size"),
        ({"model": {"weight": 1}}, r"the model is a dict \(weights alone are no model"),
        ({"model": Grey}, "the model is the class Grey"),
        ({"train": 7, "val": 7}, "train is of type int"),
        ({"val": 0.5}, "val: "),
    ],
)
def test_odd_keywords_end_in_one_line_that_names_them(trained, data, words, said):
    own = {"model": trained, "train": data, "device": "cpu"}
    with pytest.raises(UserError, match=said) as error:
        prune(**(own | words))
    assert "\n" not in str(error.value)


def test_an_unknown_keyword_is_told_options_alone(trained, data):
    with pytest.raises(UserError, match="no option 'foo'") as error:
        prune(trained, data, foo=1)
    named = str(error.value).partition("valid: ")[2].rstrip(")").split(", ")
    assert {"batch_size", "criterion", "val"} < set(named) and not {"model", "train", "options"} & set(named)


@contextmanager
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@contextmanager
def elsewhere():
    """As with a GPU for the default, which tensors of the CPU do not go together with."""
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("mode", [float64, elsewhere])
def test_what_torch_makes_by_default_changes_nothing(trained, data, mode, tmp_path):
    pairs = [(images.images.permute(0, 3, 1, 2), images.labels) for images in (data.train, data.validation)]
    own = {"preprocessing": data.preprocessing, "target": "macs=0.6", "device": "cpu"} | OPTIONS
    expected = prune(trained, *pairs, **own).model.state_dict()
    with mode():
        before = torch.get_default_dtype(), torch.get_default_device()
        result = prune(trained, *pairs, **own)
        result.save(tmp_path)
        result.export(tmp_path / "model.pt2")
        loaded = ice_ray.load_pruned(tmp_path, builder=lambda: ModelSpec("cifar-resnet8", 10).build())
        assert ice_ray.inspect(trained, data.train.image_shape).units
        assert (torch.get_default_dtype(), torch.get_default_device()) == before
    for found in (result.model, loaded):
        assert all(torch.equal(expected[name], tensor) for name, tensor in found.state_dict().items())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_turned_off(trained, data, mode):
    expected = prune(trained, data, device="cpu", **OPTIONS).model.state_dict()
    with mode():
        found = prune(trained, data, device="cpu", **OPTIONS).model
        assert ice_ray.inspect(trained, data.train.image_shape).units
    assert all(torch.equal(expected[name], tensor) for name, tensor in found.state_dict().items())
    assert not any(tensor.is_inference() for tensor in found.state_dict().values())


def test_a_rate_that_wrecks_the_network_is_named(trained, data):
    """Both of a retraining and of final epochs; a rate that suits is not."""
    wild = IceHyperparameters(final_epochs=1, final_learning_rate=20.0)
    with pytest.warns(UserWarning, match="the retraining at a learning rate of 20 took the accuracy from") as warned:
        prune(trained, data, hyperparameters=wild, device="cpu", ratio=0.2, precision="fp32")
    assert str(warned[0].message).endswith("%: final_learning_rate is probably too high")
    assert {warning.filename for warning in warned} == {__file__}
    with pytest.warns(UserWarning, match=r"the final epochs took .* final\.rate is probably too high"):
        prune(trained, data, device="cpu", final=FinalConfig(epochs=1, rate=20.0), ratio=0.2, precision="fp32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune(trained, data, hyperparameters=HYPERPARAMETERS, device="cpu", ratio=0.2, precision="fp32")


def test_warnings_point_at_the_caller(trained, data):
    untrained = ice_ray.models.copies.copied(trained).requires_grad_(False)
    for module in untrained.modules():
        getattr(module, "reset_parameters", lambda: None)()
    with pytest.warns(UserWarning) as warned:
        prune(untrained, data, device="cpu", **OPTIONS)
    told = {str(warning.message).partition(":")[0]: warning.filename for warning in warned}
    assert [name for name in told if "no better than chance" in name or "requires_grad" in name], told
    assert set(told.values()) == {__file__}, told
