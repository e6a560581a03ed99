"""The general rule on real architectures: steps, sizes, and removal that keeps what is left intact."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ice_ray.artifact import load_pruned, save_pruned
from ice_ray.engine.network import DenseNetwork
from ice_ray.errors import UserError
from ice_ray.models.registry import ModelSpec
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.coupling import dependency_graph, removal_group
from ice_ray.pruning.removal import remove_filters, widths_of
from ice_ray.pruning.selection import lowest

CPU = torch.device("cpu")
# Name, image size, pruning steps, units.
ARCHITECTURES = [
    ("torchvision:resnet18", 32, 8, 8),
    ("torchvision:resnet50", 32, 16, 32),
    ("torchvision:wide_resnet50_2", 32, 16, 32),
    ("torchvision:densenet121", 32, 58, 58),
    ("torchvision:mobilenet_v2", 32, 16, 16),
    ("torchvision:mobilenet_v3_small", 32, 11, 19),
    ("torchvision:efficientnet_b0", 32, 16, 31),
    ("torchvision:regnet_y_400mf", 32, 16, 48),
    ("torchvision:convnext_tiny", 32, 18, 18),
    ("torchvision:vgg16_bn", 32, 15, 15),
    ("torchvision:vit_b_16", 224, 12, 12),
    ("torchvision:googlenet", 32, 9, 18),
    ("cifar-mobilenetv2", 32, 17, 17),
    ("timm:resnetv2_50", 32, 16, 32),
    ("timm:seresnet18", 32, 8, 16),
    ("timm:vit_tiny_patch16_224", 224, 12, 12),
    ("timm:mixer_s32_224", 224, 16, 16),
]


def unsettle(model: nn.Module) -> None:
    """Statistics and affine parameters that are not those a norm is born with."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.1, 0.1)


def kill(model: nn.Module, shape: tuple[int, int, int], removed: dict[str, tuple[int, ...]]) -> None:
    """Make the filters' outputs zero: weights, biases, and the batch norms behind them, depthwise layers included."""
    graph = dependency_graph(model, shape)
    with torch.no_grad():
        for layer, filters in removed.items():
            module = model.get_submodule(layer)
            for item in removal_group(graph, module, list(filters)):
                target = item.dep.target.module
                owns = target is module or isinstance(target, _BatchNorm)
                if owns or (isinstance(target, nn.Conv2d) and target.groups == target.in_channels > 1):
                    for parameter in target.parameters():
                        parameter[item.idxs] = 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "steps", "units"), ARCHITECTURES, ids=[row[0] for row in ARCHITECTURES])
def test_dead_filters_go_without_a_trace_and_the_rest_trains_and_is_saved(name, size, steps, units, tmp_path):
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="timm is an extra of the package")
    shape, spec = (3, size, size), ModelSpec(name, 5)
    dense = spec.build().eval()
    unsettle(dense)
    network = DenseNetwork(dense, shape)
    assert (len(network.steps), len(network.units)) == (steps, units)
    amounts = Amounts(0.5)
    random = torch.Generator().manual_seed(0)
    removed = {
        unit.layer: lowest(torch.rand(unit.filters, generator=random), amounts.removed(unit), unit.groups)
        for unit in network.units
    }
    kill(dense, shape, removed)
    images = torch.randn(2, *shape)
    with torch.no_grad():
        expected = dense(images)
    before = sum(parameter.numel() for parameter in dense.parameters())
    remove_filters(dense, shape, removed)
    assert sum(parameter.numel() for parameter in dense.parameters()) < before
    with torch.no_grad():
        torch.testing.assert_close(dense(images), expected, rtol=1e-3, atol=1e-4)

    save_pruned(tmp_path, spec, shape, widths_of(dense, network.steps), dense.state_dict(), {})
    loaded = load_pruned(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(images), dense(images))
    dense.train()
    dense(images.repeat(2, 1, 1, 1)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in dense.parameters())


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("cifar-resnet152", 10, 2_408_474),
        ("torchvision:densenet121", 200, 7_158_856),
        ("torchvision:wide_resnet101_2", 1000, 126_886_696),
        ("cifar-mobilenetv2", 10, 2_296_922),
    ],
)
def test_the_paper_s_four_have_its_parameters(name, classes, parameters):
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of initialising what has no storage
        assert sum(parameter.numel() for parameter in _builder(name)(classes).parameters()) == parameters


def _builder(name: str):
    return ModelSpec(name, 0)._builder()


def test_the_paper_s_steps_of_wide_resnet_101():
    """The others' steps are among the tests above and beside."""
    network = DenseNetwork(ModelSpec("torchvision:wide_resnet101_2", 10).build(), (3, 32, 32))
    assert len(network.steps) == 33
    assert {tuple(unit.layer.rpartition(".")[2] for unit in step.units) for step in network.steps} == {
        ("conv1", "conv2")
    }


class Odd(nn.Module):
    """Dilation, padding modes, biases, groups: what surgery must leave as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=2, dilation=2, padding_mode="reflect")
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=True, padding_mode="circular")
        self.third = nn.Conv2d(8, 6, 3, stride=2, padding=1)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.third(self.second(self.first(x).relu()).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dilation_padding_groups_bias_and_number_type_survive(dtype):
    torch.manual_seed(0)
    model = Odd().to(dtype).eval()
    removed = {"first": (0, 1, 4, 5), "second": (1, 6), "third": (2,)}
    kill(model, (3, 9, 9), removed)
    images = torch.randn(2, 3, 9, 9, dtype=dtype)
    expected = model(images)
    remove_filters(model, (3, 9, 9), removed)
    torch.testing.assert_close(model(images), expected)
    assert (model.second.groups, model.second.weight.shape) == (2, (6, 2, 3, 3))
    assert (model.first.dilation, model.first.padding_mode) == ((2, 2), "reflect")
    assert all(parameter.dtype == dtype for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("torchvision:resnet5O", "nearest: resnet50"),
        ("torchvision:fasterrcnn_resnet50_fpn", "no classifier"),
        ("timm:hf-hub:someone/model", "no model"),
        ("cifar-resnet21", "nearest: cifar-resnet"),
    ],
)
def test_unknown_names_are_refused(name, said):
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="timm is an extra of the package")
    with pytest.raises(UserError, match=said):
        ModelSpec(name, 10).build()
