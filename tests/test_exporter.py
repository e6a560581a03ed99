"""Exported models: the same logits in other runtimes, for batches of any size."""

import importlib.util
import json

import pytest
import torch
from torch import nn

import ice_ray
from ice_ray.artifact import load_pruned, save_pruned
from ice_ray.config.jobs import ExportConfig
from ice_ray.errors import UserError
from ice_ray.models.registry import ModelSpec
from ice_ray.pruning.removal import shrink_to
from ice_ray.workflow.exporting import export_job
from ice_ray.workflow.running import run

SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A network with fewer filters than its dense form, in a folder."""
    folder = tmp_path_factory.mktemp("model") / "pruned_model"
    spec, widths = ModelSpec("cifar-resnet8", 10), {"layer1.0.conv1": 11, "layer3.0.conv1": 14}
    save(folder, spec, widths, {"class_names": list("0123456789"), "preprocessing": {"pad": 0}})
    return folder


def save(folder, spec, widths, facts):
    module = spec.build()
    shrink_to(module, SHAPE, widths)
    save_pruned(folder, spec, SHAPE, widths, module.state_dict(), facts)


@pytest.mark.slow
def test_onnx_gives_the_module_s_logits_and_knows_its_classes(saved, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    file = ice_ray.export(saved, "onnx", tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", *SHAPE]
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == list("0123456789")
    images = torch.randn(7, *SHAPE)
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(logits), load_pruned(saved)(images), rtol=1e-4, atol=1e-4)


def test_an_exported_program_gives_the_module_s_logits(saved):
    file = ice_ray.export(saved, "torch")
    assert file == saved / "model.pt2"
    images = torch.randn(7, *SHAPE)
    with torch.inference_mode():
        loaded = torch.export.load(file).module()
        torch.testing.assert_close(loaded(images), load_pruned(saved)(images))


class Counting(nn.Module):
    """Asks for the number of its images in a way that an exporter takes for a constant."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, num_classes)

    def forward(self, images):
        read = self.second(self.first(images).relu())
        return self.head(read.reshape(len(read), 8, -1).mean(2))


@pytest.mark.slow
def test_a_file_that_takes_one_number_of_images_alone_is_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    result = ice_ray.prune(
        Counting(),
        (torch.randn(40, *SHAPE), torch.arange(40) % 10),
        (torch.randn(20, *SHAPE), torch.arange(20) % 10),
        ratio=0.5,
        repair="none",
        criterion="l1",
        device="cpu",
        batch_size=8,
    )
    with pytest.raises(UserError, match=r"takes no batch of 1 \(.*x\.shape\[0\] may mend it"):
        result.export(tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


class Branching(nn.Module):
    """What it does depends on the pixels, which an exported program cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images):
        features = self.conv(images).mean((2, 3))
        return features if features.sum() > 0 else -features


def test_what_cannot_be_exported_is_said_in_one_line_and_leaves_nothing(tmp_path):
    save_pruned(tmp_path / "m", ModelSpec("mine:build", 4), SHAPE, {}, Branching().state_dict(), {})
    with pytest.raises(UserError, match="cannot be exported") as error:
        ice_ray.export(tmp_path / "m", "torch", builder=Branching)
    assert "\n" not in str(error.value)
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"model.json", "model.safetensors"}


def test_a_missing_extra_is_named(saved, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("ice_ray.export_formats.find_spec", lambda name: None if name == "onnxruntime" else found(name))
    with pytest.raises(UserError, match=r"needs onnxruntime.*ice_ray\[onnx\]"):
        ice_ray.export(saved, "onnx")


def test_the_job_writes_the_file_and_ends_as_the_others_do(saved, tmp_path, capsys):
    wanted = tmp_path / "m.pt2"
    assert run(export_job, ExportConfig, "p", [str(saved), "--format", "torch", "--target", str(wanted)]) == 0
    assert str(wanted) in capsys.readouterr().out
    assert wanted.is_file()
    for arguments, said in (
        ([str(tmp_path), "--format", "torch"], "no pruned model"),
        ([str(saved), "--format", "tflite"], "tflite"),
        ([str(saved), "--format", "torch", "--target", str(wanted / "m.pt2")], "cannot write"),
    ):
        assert run(export_job, ExportConfig, "p", arguments) == 2
        assert said in capsys.readouterr().err


class Named(nn.Module):
    """Its logits are not alone, and memory is read in order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(144, 4)

    def forward(self, images):
        maps = self.conv(images)
        return {"maps": maps, "logits": self.head(maps.view(maps.size(0), -1))}


def test_logits_that_are_not_alone_are_exported_alone(tmp_path):
    network = Named().eval()
    save_pruned(tmp_path / "m", ModelSpec("mine:build", 4), SHAPE, {}, network.state_dict(), {}, "contiguous")
    program = torch.export.load(ice_ray.export(tmp_path / "m", "torch", builder=Named)).module()
    images = torch.randn(3, *SHAPE)
    torch.testing.assert_close(program(images), network(images)["logits"])
