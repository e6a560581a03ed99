"""ice_ray.load_weights: a file into the user's own model, all of it or nothing."""

import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import ice_ray
from ice_ray import UserError


def network(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.LazyLinear(3))


@pytest.fixture
def trained():
    torch.manual_seed(0)
    model = network()
    model(torch.randn(4, 1, 8, 8))
    return model


@pytest.fixture
def model():
    torch.manual_seed(1)
    own = network()
    own.eval()(torch.randn(4, 1, 8, 8))
    return own


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_it_is_loaded_in_place_and_returned(trained, model, tmp_path):
    save_file(trained.state_dict(), tmp_path / "a.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ice_ray.load_weights(model, tmp_path / "a.safetensors") is model
    assert same(trained, model)


def test_choices_are_told(trained, model, tmp_path):
    state = trained.state_dict()
    torch.save({"model": state, "ema": {name: each + 1 for name, each in state.items()}}, tmp_path / "a.pth")
    with pytest.warns(UserWarning, match="model is taken"):
        ice_ray.load_weights(model, str(tmp_path / "a.pth"))
    assert same(trained, model)


def test_weights_that_do_not_fit_change_nothing(trained, model, tmp_path):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = trained.state_dict()
    state["3.bias"] = torch.zeros(5)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"3.bias is \(5,\) where the model has \(3,\)"):
        ice_ray.load_weights(model, tmp_path / "a.pth")
    torch.save(trained, tmp_path / "b.pth")
    with pytest.raises(UserError, match="it holds a whole module"):
        ice_ray.load_weights(model, tmp_path / "b.pth")
    with pytest.raises(UserError, match="no such file"):
        ice_ray.load_weights(model, tmp_path / "c.pth")
    with pytest.raises(UserError, match=r"the model is of type str, not a torch.nn.Module"):
        ice_ray.load_weights("resnet", tmp_path / "a.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("path", "said"), [({}, "path is a dict: .*load_state_dict"), (3, "path is of type int")])
def test_what_is_no_path_is_refused_in_one_line(model, path, said):
    with pytest.raises(UserError, match=said):
        ice_ray.load_weights(model, path)
