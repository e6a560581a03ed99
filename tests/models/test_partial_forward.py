"""Which outputs are but terms of a sum: seen in real networks, and in small ones that come close."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from ice_ray.models.partial_forward import End, Followed, follow, outputs_at, passage
from ice_ray.models.registry import ModelSpec
from ice_ray.models.trace import trace_layers

SHAPE = (3, 32, 32)


def sums_in(model: nn.Module) -> set[str]:
    ends = {trace.name: trace.norm or trace.name for trace in trace_layers(model, SHAPE)}
    return {layer for layer, followed in follow(model.eval(), SHAPE, ends).items() if followed.is_term}


def test_residual_branches_end_in_sums():
    found = sums_in(torchvision.models.resnet18(num_classes=4))
    blocks = {f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)}
    assert found == {f"{block}.conv2" for block in blocks} | {f"layer{stage}.0.downsample.0" for stage in (2, 3, 4)}
    cifar = sums_in(ModelSpec("cifar-resnet20", 10).build())
    assert cifar == {f"layer{stage}.{block}.conv2" for stage in (1, 2, 3) for block in (0, 1, 2)}


def test_only_blocks_with_a_shortcut_do():
    model = torchvision.models.mobilenet_v2(num_classes=4)
    with_shortcut = {
        f"features.{number}" for number, block in enumerate(model.features) if getattr(block, "use_res_connect", False)
    }
    assert {layer.rpartition(".conv.")[0] for layer in sums_in(model)} == with_shortcut


def test_a_chain_and_concatenations_have_none():
    assert not sums_in(torchvision.models.vgg11(num_classes=4).features)
    assert not sums_in(torchvision.models.densenet121(num_classes=4))


class Tail(nn.Module):
    def __init__(self, then) -> None:
        super().__init__()
        self.conv, self.then = nn.Conv2d(3, 3, 1), then

    def forward(self, x):
        return self.then(self.conv(x), x)


@pytest.mark.parametrize(
    ("then", "is_sum"),
    [
        (lambda y, x: y + x, True),
        (lambda y, x: x + y, True),
        (lambda y, x: y.add_(x), True),
        (lambda y, x: x.clone().add_(y) if y.shape == x.shape else y, True),
        (lambda y, x: y + y, False),
        (lambda y, x: y + 1, False),
        (lambda y, x: y + x[:, :, :1], False),  # another shape
        (lambda y, x: torch.add(y, x, alpha=2), False),
        (lambda y, x: (y + x) * y.mean(), False),  # read twice
        (lambda y, x: torch.cat([y + x, y]), False),
        (lambda y, x: y - x, False),
        (lambda y, x: torch.relu(y) + x, False),
    ],
)  # fmt: skip
def test_what_counts_as_a_sum(then, is_sum):
    model = Tail(then).eval()
    assert follow(model, SHAPE, {"conv": "conv"})["conv"].is_term is is_sum
    if is_sum:
        images = torch.randn(2, *SHAPE)
        found = passage(model, "conv", images, "conv")
        assert torch.equal(found.shortcut, images)
        assert torch.equal(found.given, images)


@pytest.mark.parametrize(
    ("then", "followed"),
    [
        (lambda y, x: F.relu(y), Followed(False, "relu")),
        (lambda y, x: F.relu(y, inplace=True) + 1, Followed(False, "relu")),
        (lambda y, x: y.relu_() * 2, Followed(False, "relu")),
        (lambda y, x: F.silu(y + x), Followed(True, "silu")),
        (lambda y, x: F.relu6(y.add_(x), inplace=True) + 1, Followed(True, "relu6")),
        (lambda y, x: F.relu(z := y + x) + z, Followed(True, None)),  # the sum is read beside it
        (lambda y, x: F.relu(y) + y, Followed(False, None)),
        (lambda y, x: torch.sigmoid(y + x), Followed(True, None)),  # none that is known
        (lambda y, x: y + x, Followed(True, None)),
        (lambda y, x: y.flatten(2), Followed(False, None)),
    ],
)  # fmt: skip
def test_which_activation_alone_reads_an_output_or_its_sum(then, followed):
    assert follow(Tail(then).eval(), SHAPE, {"conv": "conv"}) == {"conv": followed}


class Twice(Tail):
    def forward(self, x):
        return F.relu(self.conv(F.relu(self.conv(x))))


def test_a_layer_that_runs_twice_has_no_activation_of_its_own():
    assert follow(Twice(None).eval(), SHAPE, {"conv": "conv"})["conv"].activation is None


def test_a_passage_through_a_block_has_what_its_shortcut_carries():
    model = torchvision.models.resnet18(num_classes=4).eval()
    images = torch.randn(2, *SHAPE)
    read = []
    model.layer2[0].downsample.register_forward_hook(lambda _, __, output: read.append(output))
    later = []
    model.layer3.register_forward_hook(lambda *_: later.append(1))
    found = passage(model, "layer2.0.conv2", images, "layer2.0.bn2")
    assert torch.equal(found.shortcut, read[0])
    assert not later  # the pass has ended at the sum
    assert passage(model, "layer2.0.conv2", images).shortcut is None


def test_a_pass_gives_what_is_at_several_points_and_ends_at_the_last_with_gradients():
    torch.manual_seed(0)
    model, images = ModelSpec("cifar-resnet8", 10).build().eval(), torch.rand(2, 3, 32, 32)
    block, after = model.layer1[0], []
    model.layer2.register_forward_hook(lambda *_: after.append(1))
    first, summed = outputs_at(model, [End("layer1.0.bn1"), End("layer1.0.bn2", is_term=True)], images)
    read = F.relu(model.bn1(model.conv1(images)))
    inner = block.bn1(block.conv1(read))
    torch.testing.assert_close(first, inner)
    torch.testing.assert_close(summed, block.bn2(block.conv2(F.relu(inner))) + block.shortcut(read))
    assert not after
    summed.sum().backward()
    assert block.conv1.weight.grad is not None
