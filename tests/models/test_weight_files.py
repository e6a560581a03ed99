"""Files of weights as tools leave them: what can be taken is, and where something was chosen that is said."""

import argparse
import copy
import pickle
import types

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from ice_ray.errors import UserError
from ice_ray.models.registry import ModelSpec
from ice_ray.models.weights import fit_weights, read_weights


def build(classes: int = 10) -> nn.Module:
    return ModelSpec("cifar-resnet8", classes).build()


def state(offset: float = 0.0) -> dict[str, torch.Tensor]:
    return {key: each + offset if each.is_floating_point() else each for key, each in build().state_dict().items()}


def loaded(path) -> tuple[float, str]:
    """What a bias has become, whose saved values differ by their offset, and what was said."""
    model, held = build(), read_weights(path)
    notes = fit_weights(model, held.tensors, str(path))
    apart = model.state_dict()["linear.bias"] - state()["linear.bias"]
    return round(float(apart.mean()), 3), "; ".join((*held.notes, *notes))


@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "module.", "model.", "net.", "module._orig_mod.", "_orig_mod.module.", "model.net._orig_mod."],
)
@pytest.mark.parametrize("form", ["torch", "safetensors"])
def test_a_prefix_that_all_keys_have_is_no_part_of_a_name(prefix, form, tmp_path):
    held = {f"{prefix}{key}": each for key, each in state(1.0).items()}
    if form == "torch":
        torch.save(held, tmp_path / "w.ckpt")
    else:
        safetensors.torch.save_file(held, tmp_path / "w.safetensors", metadata={"format": "pt"})
    assert loaded(tmp_path / ("w.ckpt" if form == "torch" else "w.safetensors")) == (1.0, "")


def test_parts_that_were_wrapped_by_themselves(tmp_path):
    held = {key.replace("layer1.", "layer1._orig_mod.").replace("layer2.", "layer2.module."): each
            for key, each in state(1.0).items()}  # fmt: skip
    torch.save(held, tmp_path / "w.pth")
    assert loaded(tmp_path / "w.pth")[0] == 1.0


@pytest.mark.parametrize(
    "key", ["net", "model", "model_state_dict", "state_dict", "module", "weights", "ema", "student"]
)
def test_a_state_dict_under_a_key(key, tmp_path):
    torch.save({"epoch": 3, key: state(1.0), "optimizer": {"state": {}, "param_groups": []}}, tmp_path / "w.bin")
    assert loaded(tmp_path / "w.bin")[0] == 1.0


def test_a_lightning_checkpoint(tmp_path):
    held = {f"model.{key}": each for key, each in state(1.0).items()} | {"criterion.weight": torch.ones(10)}
    torch.save({"state_dict": held, "pytorch-lightning_version": "2.4", "callbacks": {}}, tmp_path / "w.ckpt")
    offset, said = loaded(tmp_path / "w.ckpt")
    assert offset == 1.0
    assert "what is under 'model.' is taken, criterion.weight left out" in said


def test_what_tools_have_added_is_left_out_with_a_word(tmp_path):
    held = {f"module.{key}": each for key, each in state(1.0).items()}
    held |= {"n_averaged": torch.tensor(7), "module.conv1.total_ops": torch.zeros(1), "total_params": torch.zeros(1)}
    torch.save(held, tmp_path / "w.pth")
    offset, said = loaded(tmp_path / "w.pth")
    assert offset == 1.0
    assert "left out, which a tool has added" in said


@pytest.mark.parametrize("key", ["ema", "state_dict_ema", "model_ema"])
def test_averaged_weights_beside_the_trained_ones(key, tmp_path):
    torch.save({key: state(2.0), "model": state(1.0)}, tmp_path / "w.pth")
    offset, said = loaded(tmp_path / "w.pth")
    assert offset == 1.0
    assert f"holds model and {key}: model is taken" in said
    assert f"weights_only=True)['{key}'], 'weights.pth')" in said


def test_averaged_weights_under_a_prefix_of_their_own(tmp_path):
    held = {f"model.{key}": each for key, each in state(1.0).items()}
    held |= {f"ema_model.{key}": each for key, each in state(2.0).items()}
    torch.save({"state_dict": held}, tmp_path / "w.ckpt")
    offset, said = loaded(tmp_path / "w.ckpt")
    assert offset == 1.0
    assert "what is under 'model.' is taken" in said


def test_two_of_which_none_is_meant_more_are_refused(tmp_path):
    torch.save({"net": state(1.0), "model": state(2.0)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds weights under each of model, net: save those"):
        loaded(tmp_path / "w.pth")
    both = {f"{prefix}.{key}": each for key, each in state().items() for prefix in ("student", "teacher")}
    torch.save(both, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"hold the model under each of 'student\.', 'teacher\.'"):
        loaded(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int32, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2]
)
@pytest.mark.parametrize("form", ["torch", "safetensors"])
def test_numbers_that_are_no_weights_are_refused_by_name(dtype, form, tmp_path):
    held = state()
    held["layer1.0.conv1.weight"] = (100 * held["layer1.0.conv1.weight"]).to(dtype)
    path = tmp_path / ("w.pth" if form == "torch" else "w.safetensors")
    torch.save(held, path) if form == "torch" else safetensors.torch.save_file(held, path)
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(UserError, match=rf"layer1\.0\.conv1\.weight holds numbers of type {kind} where .* float32"):
        loaded(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_weights(dtype, tmp_path):
    torch.save({key: each.to(dtype) for key, each in state(1.0).items()}, tmp_path / "w.pth")
    assert loaded(tmp_path / "w.pth")[0] == pytest.approx(1.0, abs=0.01)
    large = {key: each.double() for key, each in state().items()} | {
        "linear.bias": torch.full((10,), 1e300, dtype=torch.float64)
    }
    torch.save(large, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"NaN or infinity in linear\.bias"):
        loaded(tmp_path / "w.pth")


def test_a_state_dict_of_a_quantised_network(tmp_path):
    quantised = {
        "fc.scale": torch.tensor(1.0),
        "fc._packed_params": torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8),
    }
    torch.save(quantised, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"fc\._packed_params"):
        loaded(tmp_path / "w.pth")


class Own(nn.Module):
    def forward(self, images):
        return images


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"args": argparse.Namespace(lr=1), "state_dict": {}}, r"argparse\.Namespace.*held\['state_dict'\]"),
        (build(), r"a whole module .*CifarResNet.*held\.state_dict\(\)"),
        ({"model": Own()}, r"test_weight_files\.Own"),
        ({"hyper_parameters": types.SimpleNamespace(a=1), "state_dict": {}}, r"types\.SimpleNamespace"),
        ({"model": {}, "args": argparse.Namespace(lr=1)}, r"argparse\.Namespace.*held\['model'\], "),
        ({"epoch": 3, "model": build(), "ema": None}, r"held\['model'\]\.state_dict\(\)"),
    ],
)
@pytest.mark.parametrize("newer", [True, False])
def test_objects_beside_the_tensors_are_named_with_the_mend(held, said, newer, tmp_path):
    torch.save(held, tmp_path / "w.pth", _use_new_zipfile_serialization=newer)
    with pytest.raises(UserError, match=f"cannot be read safely.*{said if newer else ''}") as refused:
        read_weights(tmp_path / "w.pth")
    text = str(refused.value)
    assert "\x1b" not in text
    assert "weights_only=False); torch.save(held" in text
    assert len(text.splitlines()) == 1


def test_archives_that_are_no_weights(tmp_path):
    torch.jit.save(torch.jit.script(nn.Sequential(nn.Linear(2, 2))), tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"is a TorchScript archive: .*torch\.jit\.load\("):
        read_weights(tmp_path / "w.pt")
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), tmp_path / "w.pt2")
    with pytest.raises(UserError, match="is an exported program"):
        read_weights(tmp_path / "w.pt2")
    import zipfile

    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("readme.txt", "none")
    with pytest.raises(UserError, match="is a zip archive without weights of torch"):
        read_weights(tmp_path / "w.zip")


def test_safetensors_are_known_by_what_they_begin_with(tmp_path):
    safetensors.torch.save_file(state(1.0), tmp_path / "w.bin")
    assert loaded(tmp_path / "w.bin")[0] == 1.0


def test_a_head_of_other_classes_and_a_narrower_model_are_told():
    with pytest.raises(UserError, match="they tell 5 classes apart, the model 10"):
        fit_weights(build(), build(5).state_dict(), "w")
    narrow = copy.deepcopy(state())
    for key, each in narrow.items():
        if key.startswith("layer1.0.") and "conv1.weight" in key:
            narrow[key] = each[:8].clone()
    with pytest.raises(UserError, match="narrower model, as of one that is pruned: give the dense model's"):
        fit_weights(build(), narrow, "w")


TO_BE_MENDED = {
    "timm": lambda: {"state_dict": state(1.0), "state_dict_ema": state(2.0), "args": argparse.Namespace(lr=1)},
    "deit": lambda: {"model": state(1.0), "args": argparse.Namespace(lr=1)},
    "numpy's scalar": lambda: {"net": state(1.0), "accuracy": np.float64(93)},
    "numpy's arrays": lambda: {key: each.numpy() for key, each in state(1.0).items()},
    "numpy's arrays under a key": lambda: {"model": {key: each.numpy() for key, each in state(1.0).items()}},
    "a setting among tensors": lambda: {**state(1.0), "args": argparse.Namespace(lr=1)},
}


MODULES = {"whole": lambda: filled(), "yolo": lambda: {"epoch": 3, "model": filled(), "ema": None}}


def filled() -> nn.Module:
    model = build()
    model.load_state_dict(state(1.0))
    return model


def mended(path, monkeypatch) -> float:
    """What the lines that a refusal offers make of a file."""
    with pytest.raises(UserError, match="cannot be read safely") as refused:
        read_weights(path)
    monkeypatch.chdir(path.parent)
    lines = str(refused.value).partition("Where you trust it")[2].partition(": ")[2]
    exec(lines, {"torch": torch, "pickle": pickle})
    return loaded(path.parent / "weights.pth")[0]


@pytest.mark.parametrize("held", TO_BE_MENDED.values(), ids=TO_BE_MENDED)
@pytest.mark.parametrize("newer", [True, False])
def test_the_lines_that_are_offered_do_mend_it(held, newer, tmp_path, monkeypatch):
    torch.save(held(), tmp_path / "w.pth", _use_new_zipfile_serialization=newer)
    assert mended(tmp_path / "w.pth", monkeypatch) == 1.0


@pytest.mark.parametrize("held", MODULES.values(), ids=MODULES)
def test_so_they_do_with_whole_modules(held, tmp_path, monkeypatch):
    torch.save(held(), tmp_path / "w.pth")
    assert mended(tmp_path / "w.pth", monkeypatch) == 1.0


def test_so_they_do_with_a_pickle_of_tensors(tmp_path, monkeypatch):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(state(1.0)))
    assert mended(tmp_path / "w.pkl", monkeypatch) == 1.0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\n", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>Not found", "is a web page"),
        (b"\x1f\x8b" + bytes(99), "packed with gzip"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file"),
        (b"\x08\x07\x12\x07pytorch" + bytes(99), "no file that torch has saved"),
    ],
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_other_files_are_told_by_what_they_begin_with(content, said, suffix, tmp_path):
    (tmp_path / f"w.{suffix}").write_bytes(content)
    with pytest.raises(UserError, match=said if suffix == "pth" else f"{said}|not a safetensors file") as refused:
        read_weights(tmp_path / f"w.{suffix}")
    assert "PyTorch 2.6" not in str(refused.value)
    with pytest.raises(UserError, match="is a folder"):
        read_weights(tmp_path)


def test_torch_s_own_file_may_be_called_safetensors(tmp_path):
    torch.save(state(1.0), tmp_path / "w.safetensors")
    assert loaded(tmp_path / "w.safetensors")[0] == 1.0


def test_a_state_dict_under_any_key_is_taken_with_a_word_if_it_is_alone(tmp_path):
    torch.save(
        {"best_model": state(1.0), "epoch": 1, "optimizer": {"state": {0: {"m": torch.ones(2, 2)}}}}, tmp_path / "w"
    )
    offset, said = loaded(tmp_path / "w")
    assert offset == 1.0
    assert "best_model is taken" in said
    torch.save({"student": state(1.0), "teacher": state(2.0)}, tmp_path / "w")
    with pytest.raises(UserError, match="weights under each of student, teacher"):
        loaded(tmp_path / "w")
    torch.save({"state_dict": state(1.0), "best_state": state(2.0)}, tmp_path / "w")
    offset, said = loaded(tmp_path / "w")
    assert offset == 1.0
    assert "holds state_dict and best_state: state_dict is taken" in said


def test_settings_under_the_keys_of_weights_are_none(tmp_path):
    settings = {"model": {"name": {"depth": 8}}, "params": {"optimizer": {"lr": 0.1}}}
    torch.save({"state_dict": state(1.0), **settings}, tmp_path / "w.pth")
    assert loaded(tmp_path / "w.pth") == (1.0, "")
    for held, kind in (
        ({**settings}, "a dict with model, params"),
        ({"optimizer": {"state": {}, "param_groups": []}}, "a dict with optimizer"),
        ({"state_dict": {}}, "a dict with state_dict"),
    ):
        torch.save(held, tmp_path / "w.pth")
        with pytest.raises(UserError, match=f"holds {kind}, not a state dict"):
            loaded(tmp_path / "w.pth")
    circle: dict = {"epoch": 3}
    circle["state_dict"] = circle
    torch.save(circle, tmp_path / "w.pth")
    with pytest.raises(UserError, match="not a state dict"):
        loaded(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"conv1.weight": torch.ones(16, 3, 3, 3, dtype=torch.int8), "conv1.weight_scale": torch.ones(1)},
            "of type int8",
        ),
        ({"conv1.weight_zero_point": torch.ones(1)}, "quantised must be given as floats"),
        ({"conv1.weight_orig": torch.ones(1), "conv1.weight_mask": torch.ones(1)}, r"prune\.remove\(module"),
        ({"conv1.weight_g": torch.ones(1), "conv1.weight_v": torch.ones(1)}, "remove_weight_norm"),
        ({"conv1.weight_orig": torch.ones(1), "conv1.weight_u": torch.ones(1)}, "remove_spectral_norm"),
        ({"conv1.parametrizations.weight.original0": torch.ones(1)}, "remove_parametrizations"),
        ({"conv1.weight": torch.ones(16, 3, 3, 3, device="meta")}, "no plain tensor of numbers"),
    ],
)
def test_what_tools_have_made_of_weights_is_told(more, said, tmp_path):
    torch.save({**state(), **more}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=said):
        loaded(tmp_path / "w.pth")


def test_another_architecture_is_told_without_its_prefix():
    deeper = ModelSpec("cifar-resnet14", 10).build().state_dict()
    with pytest.raises(UserError, match=r"do not fit the model: unknown layer1\.1\.bn1\.bias"):
        fit_weights(build(), {f"model.{key}": each for key, each in deeper.items()}, "w")
