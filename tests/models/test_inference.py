"""Networks folded to answer give the answers of the unfolded ones."""

import pytest
import torch
import torchvision
from torch import nn

from ice_ray.models.inference import foldable_norms, folded
from ice_ray.models.registry import ModelSpec
from ice_ray.models.trace import trace_layers


def with_statistics(model: nn.Module) -> nn.Module:
    """Batch norms as training leaves them: no two channels alike."""
    drawn = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                tensor.copy_(torch.rand(tensor.shape, generator=drawn) + 0.5)
    return model


def norms_of(model: nn.Module, shape: tuple[int, int, int]) -> dict[str, str]:
    return foldable_norms(model, {trace.name: trace.norm for trace in trace_layers(model, shape)}, shape)


@pytest.mark.parametrize(
    ("model", "shape", "count"),
    [
        (ModelSpec("cifar-resnet8", 10).build(), (3, 32, 32), 7),
        (ModelSpec("cifar-mobilenetv2", 10).build(), (3, 32, 32), None),
        (torchvision.models.densenet121(), (3, 64, 64), None),
        (torchvision.models.mobilenet_v3_small(), (3, 64, 64), None),
    ],
    ids=["resnet", "mobilenet", "densenet", "squeeze"],
)
def test_a_folded_network_gives_the_same_answers(model, shape, count):
    with_statistics(model)
    norms = norms_of(model, shape)
    assert len(norms) == count if count else norms
    images = torch.rand(4, *shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        answers, expected = folded(model, norms)(images), model.eval()(images)
    torch.testing.assert_close(answers, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    left = [module for module in folded(model, norms).modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(left) == sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) - len(norms)


def test_the_network_itself_stays_as_it_is():
    model = with_statistics(ModelSpec("cifar-resnet8", 10).build())
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    folded(model, norms_of(model, (3, 32, 32)))
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


class ReadTwice(nn.Module):
    """The batch norm's input is read beside it, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.conv(images)
        return self.head((self.norm(features) + features).mean((2, 3)))


class Activating(nn.BatchNorm2d):
    """Does more than normalise."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(features).relu()


@pytest.mark.parametrize(
    "model",
    [
        ReadTwice(),
        nn.Sequential(nn.Conv2d(3, 4, 3), Activating(4), nn.Flatten(), nn.LazyLinear(2)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(), nn.LazyLinear(2)),
    ],
    ids=["read twice", "activates", "no statistics"],
)
def test_what_folding_would_change_is_left_alone(model):
    """With fresh norms, too, which do next to nothing."""
    model(torch.zeros(2, 3, 8, 8))
    assert norms_of(model, (3, 8, 8)) == {}
