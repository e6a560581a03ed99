"""Weights from users' files: what fits is loaded, what does not is named, nothing in them is run."""

import pickle

import pytest
import safetensors.torch
import torch

from ice_ray.errors import UserError
from ice_ray.models.registry import ModelSpec
from ice_ray.models.weights import fit_weights, load_state_dict


def spec() -> ModelSpec:
    return ModelSpec("cifar-resnet8", 10)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "best_prec1": 90.1}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("suffix", [".pth", ".th"])
def test_state_dicts_as_people_save_them(tmp_path, wrap, prefix, suffix):
    weights = {f"{prefix}{key}": value + 1 for key, value in spec().build().state_dict().items()}
    torch.save(wrap(weights), tmp_path / f"w{suffix}")
    model = spec().build()
    fit_weights(model, load_state_dict(tmp_path / f"w{suffix}"), "w")
    assert torch.equal(model.state_dict()["conv1.weight"], weights[f"{prefix}conv1.weight"])


def test_safetensors(tmp_path):
    weights = spec().build().state_dict()
    safetensors.torch.save_file(weights, tmp_path / "w.safetensors")
    assert torch.equal(load_state_dict(tmp_path / "w.safetensors")["linear.bias"], weights["linear.bias"])


def test_a_published_checkpoint_as_its_author_made_it(shared):
    model = ModelSpec("cifar-resnet20", 10).build()
    fit_weights(model, load_state_dict(shared / "weights" / "resnet20-12fca82f.th"), "published")
    assert sum(parameter.numel() for parameter in model.parameters()) == 269_722


class Hostile:
    """Writes a file when unpickled the unsafe way."""

    def __init__(self, target) -> None:
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_weights_file_is_refused_and_not_run(tmp_path, how):
    file, target = tmp_path / "w.pth", tmp_path / "owned"
    if how == "torch":
        torch.save({"state_dict": Hostile(target)}, file)
    else:
        file.write_bytes(pickle.dumps(Hostile(target)))
    with pytest.raises(UserError, match="safely"):
        load_state_dict(file)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04broken", b"\x80\x02}q\x00."])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_files_that_are_no_weights_are_refused(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        load_state_dict(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_state_dict(tmp_path / "nothing.pth")


def test_keys_that_do_not_fit_are_named():
    weights = spec().build().state_dict()
    weights["extra"] = weights.pop("linear.bias")
    with pytest.raises(UserError, match=r"missing linear.bias; unknown extra.*is it the right model"):
        fit_weights(spec().build(), weights, "w")
    with pytest.raises(UserError, match=r"linear.weight is \(10, 64\) where the model has \(5, 64\)"):
        fit_weights(ModelSpec("cifar-resnet8", 5).build(), spec().build().state_dict(), "w")


def test_weights_that_are_not_numbers_are_refused():
    weights = spec().build().state_dict()
    weights["conv1.weight"][0] = float("nan")
    with pytest.raises(UserError, match=r"NaN or infinity in conv1.weight"):
        fit_weights(spec().build(), weights, "w")


def test_statistics_that_old_checkpoints_lack_are_optional():
    weights = {key: value for key, value in spec().build().state_dict().items() if "num_batches" not in key}
    fit_weights(spec().build(), weights, "w")


def test_unknown_models_are_refused_with_the_nearest():
    with pytest.raises(UserError, match="nearest: cifar-resnet110"):
        ModelSpec("cifar-resnet11", 10).build()
    with pytest.raises(UserError, match="importable"):
        ModelSpec("no.such.module:build", 10).build()


def test_a_user_s_own_function(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(
        "from torch import nn\ndef build(num_classes): return nn.Linear(2, num_classes)\ndef wrong(): return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    assert ModelSpec("my_models:build", 7).build().out_features == 7
    with pytest.raises(UserError, match="returned int"):
        ModelSpec("my_models:wrong", 7).build()
