"""docs/without_ice_ray.md: the loader of weights, as printed there, on networks of many kinds of layers."""

import re
import sys
from pathlib import Path

import pytest
import torch
import users_folder

from ice_ray.engine.network import DenseNetwork
from ice_ray.models.registry import ModelSpec

PAGE = (Path(__file__).parents[2] / "docs" / "without_ice_ray.md").read_text()
MODELS = {
    "cifar-resnet8": 8,
    "cifar-mobilenetv2": 32,
    "torchvision:mobilenet_v3_small": 32,
    "torchvision:regnet_y_400mf": 32,
    "torchvision:convnext_tiny": 32,
    "torchvision:vgg11_bn": 32,
    "mynet:build": 8,
}


@pytest.fixture
def loader(tmp_path, monkeypatch) -> str:
    """The function, without the lines that call it."""
    (tmp_path / "mynet.py").write_text(users_folder.MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mynet", raising=False)
    (block,) = (each for each in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "def load_smaller" in each)
    return block.partition("\n\n\nmodel = ")[0]


def test_it_is_short(loader):
    body = loader.partition("def load_smaller")[2]
    assert len([line for line in body.splitlines() if line.strip()]) <= 15
    assert set(re.findall(r"^(?:import|from) (\w+)", loader, re.MULTILINE)) == {"torch", "mynet"}


@pytest.mark.parametrize(("model", "size"), MODELS.items(), ids=MODELS)
def test_weights_of_a_pruned_network_fit_the_class(loader, model, size):
    names: dict[str, object] = {}
    exec(loader, names)
    spec, shape = ModelSpec(model, 10), (3, size, size)
    network = DenseNetwork(spec.build(), shape)
    widths = {unit.layer: max(unit.groups, unit.filters // 2 // unit.groups * unit.groups) for unit in network.units}
    pruned = network.build_pruned(widths, torch.device("cpu")).eval()
    with torch.no_grad():
        for buffer in (each for name, each in pruned.named_buffers() if "running" in name):
            buffer.uniform_(0.5, 1.5)
        images = torch.randn(2, *shape)
        loaded = names["load_smaller"](spec.build(), pruned.state_dict())
        torch.testing.assert_close(loaded(images), pruned(images))
    assert {name: tensor.shape for name, tensor in loaded.state_dict().items()} == {
        name: tensor.shape for name, tensor in pruned.state_dict().items()
    }
