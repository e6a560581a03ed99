"""Saved pruned models: same logits when they come back, and nothing in an edited file is trusted."""

import json

import pytest
import torch

from ice_ray.artifact import DESCRIPTION, WEIGHTS, load_pruned, save_pruned
from ice_ray.engine.actions import Prune
from ice_ray.errors import UserError
from ice_ray.models.registry import ModelSpec


@pytest.fixture
def saved(executor, tmp_path):
    """A pruned digits network in a folder, with the live module it came from."""
    outcome = executor.run(executor.root, Prune((("layer1.0.conv1", (0, 3)), ("layer3.0.conv1", tuple(range(50))))))
    snapshot = executor.commit(outcome.snapshot)
    spec = ModelSpec("cifar-resnet8", 10)
    save_pruned(tmp_path / "m", spec, (3, 8, 8), snapshot.kept, snapshot.tensors, {"metrics": {"accuracy": 1.0}})
    return tmp_path / "m", executor.module(outcome.snapshot)


def test_same_logits(saved):
    folder, live = saved
    images = torch.randn(16, 3, 8, 8)
    with torch.inference_mode():
        loaded = load_pruned(folder)
    assert not loaded.training
    torch.testing.assert_close(loaded(images), live.eval()(images), rtol=0, atol=0)
    assert loaded.get_submodule("layer3.0.conv1").out_channels == 14
    assert json.loads((folder / DESCRIPTION).read_text())["metrics"] == {"accuracy": 1.0}


def test_it_says_which_filters_are_left_and_older_files_that_do_not_are_read_all_the_same(saved):
    folder, live = saved
    content = json.loads((folder / DESCRIPTION).read_text())
    assert content["kept"]["layer1.0.conv1"] == [1, 2, *range(4, 16)]
    assert {layer: len(own) for layer, own in content["kept"].items()} == content["widths"]
    edit(folder, lambda content: content.pop("kept"))
    images = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(load_pruned(folder)(images), live.eval()(images), rtol=0, atol=0)


def test_a_model_of_the_user_s_own_needs_its_function_and_the_file_cannot_name_one(saved):
    folder, _ = saved
    edit(folder, lambda content: content["builder"].update(name="os:system"))
    with pytest.raises(UserError, match="builder="):
        load_pruned(folder)
    load_pruned(folder, builder=lambda num_classes: ModelSpec("cifar-resnet8", num_classes).build())
    with pytest.raises(UserError):
        load_pruned(folder, builder=lambda num_classes: ModelSpec("cifar-resnet20", num_classes).build())


def edit(folder, change):
    content = json.loads((folder / DESCRIPTION).read_text())
    change(content)
    (folder / DESCRIPTION).write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("widths"),
        lambda c: c.update(widths=[1, 2]),
        lambda c: c["widths"].update({"layer1.0.conv1": 0}),
        lambda c: c["widths"].update({"layer1.0.conv1": "8"}),
        lambda c: c["widths"].update({"layer1.0.conv1": 9}),
        lambda c: c["widths"].update({"nowhere": 9}),
        lambda c: c["kept"].update({"layer1.0.conv1": [0, 1]}),
        lambda c: c["kept"].update({"layer1.0.conv1": [*range(13), 16]}),
        lambda c: c["kept"].update({"layer1.0.conv1": [*range(13), "13"]}),
        lambda c: c["kept"].update({"layer1.0.conv1": 14}),
        lambda c: c["kept"].update({"nowhere": [0]}),
        lambda c: c.update(schema_version=99),
        lambda c: c.update(image_shape=[3, -8, 8]),
        lambda c: c.update(image_shape=[1, 8, 8]),
        lambda c: c["builder"].update(num_classes=10**9),
        lambda c: c["builder"].update(num_classes=11),
        lambda c: c.update(builder="cifar-resnet8"),
        lambda c: c.update(sha256="0" * 64),
    ],
)
def test_edited_descriptions_are_refused_in_one_line(saved, change):
    folder, _ = saved
    edit(folder, change)
    with pytest.raises(UserError) as error:
        load_pruned(folder)
    assert len(str(error.value)) < 600


def test_damaged_files_are_refused(saved):
    folder, _ = saved
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match="damaged"):
        load_pruned(folder)
    (folder / DESCRIPTION).write_text("{")
    with pytest.raises(UserError, match="damaged"):
        load_pruned(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(UserError, match="no pruned model"):
        load_pruned(folder)
