"""Passes that begin in the middle end as whole ones do."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from ice_ray.models.partial_forward import reads_and_gives
from ice_ray.models.registry import ModelSpec
from ice_ray.models.resume import Activations, ResumePoint, chosen, find_resume_points, reach, resume_from
from ice_ray.models.trace import trace_layers


class Shared(nn.Module):
    """One activation for all, as in torchvision; blocks that add what they read; one that changes it in place."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        x = self.relu(self.first(x))
        x = x + self.relu(self.second(x))
        return self.head(self.relu(self.third(x)).mean((2, 3)))


class Repeated(nn.Module):
    """A layer that runs twice: where it has run once, it will be needed again."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.last(self.twice(F.relu(self.twice(x)))).mean((2, 3))


class Skipping(nn.Module):
    """The first layer's output is read by the last: nothing between is all that there is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x):
        early = self.first(x)
        return (self.third(self.second(early)) + early).mean((2, 3))


NETWORKS = {
    "resnet": lambda: ModelSpec("cifar-resnet20", 10).build(),
    "mobilenet": lambda: ModelSpec("cifar-mobilenetv2", 10).build(),
    "torchvision's resnet": lambda: torchvision.models.resnet18(),
    "squeeze": lambda: torchvision.models.mobilenet_v3_small(),
    "chain": lambda: nn.Sequential(*torchvision.models.vgg11().features, nn.Flatten(), nn.LazyLinear(2)),
    "concatenating": lambda: torchvision.models.DenseNet(4, (2, 3, 2), 8, num_classes=5),
    "branching": lambda: torchvision.models.squeezenet1_1(),
    "shared": Shared,
    "repeated": Repeated,
    "skipping": Skipping,
}
SIZES = {"resnet": 32, "mobilenet": 32}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pass_from_any_resume_point_gives_the_same_bits(name):
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    size = SIZES.get(name, 64)
    images = torch.rand(3, 3, size, size)
    model(images)
    layers = list(dict.fromkeys(trace.name for trace in trace_layers(model, (3, size, size))))
    resume_points = find_resume_points(model, (3, size, size), layers)
    with torch.inference_mode():
        expected = model(images)
        activations = None
        for resume_point in dict.fromkeys(resume_points.values()):
            activations = reach(model, resume_point, images, activations)  # each from the one before
            with resume_from(model, activations):
                assert torch.equal(model(images), expected)
        assert torch.equal(model(images), expected)  # nothing stays behind
    assert not any("forward" in vars(module) for module in model.modules())


def entered(model: nn.Module, size: int = 16) -> dict[str, str]:
    layers = [trace.name for trace in trace_layers(model, (3, size, size))]
    return {layer: own.module for layer, own in find_resume_points(model, (3, size, size), layers).items()}


def test_blocks_are_resumed_behind_the_block_before():
    found = entered(ModelSpec("cifar-resnet20", 10).build().eval(), 32)
    assert found["layer1.0.conv1"] == "bn1"
    assert found["layer1.1.conv1"] == "layer1.0"
    assert found["layer2.0.conv1"] == "layer1"
    assert found["layer1.1.conv2"] == "layer1.0"  # inside a block its shortcut is needed, too


def test_what_is_needed_later_is_not_left_out():
    torch.manual_seed(0)
    assert entered(Skipping()) == {"second": "first", "third": "first"}
    assert "last" not in entered(Repeated())
    assert entered(Shared()) == {"second": "first", "third": "first", "head": "third"}


def test_in_the_middle_of_a_network_a_layer_reads_what_it_read():
    torch.manual_seed(0)
    model, images = NETWORKS["mobilenet"]().eval(), torch.rand(2, 3, 32, 32)
    layers = [trace.name for trace in trace_layers(model, (3, 32, 32))]
    resume_point = find_resume_points(model, (3, 32, 32), layers)[layers[-2]]
    whole = reads_and_gives(model, layers[-1], images)
    with resume_from(model, reach(model, resume_point, images)):
        assert all(map(torch.equal, reads_and_gives(model, layers[-1], images), whole))


class Telling(nn.Conv2d):
    """Leaves behind something that is no output."""

    def forward(self, x):
        self.told = x.mean((1, 2, 3))
        return super().forward(x)


class Listening(Skipping):
    """Reads at its end what its first layer has left behind."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Telling(3, 3, 3, padding=1)

    def forward(self, x):
        return self.third(self.second(self.first(x))).mean((2, 3)) * self.first.told[:, None]


def test_what_goes_past_the_outputs_is_missed():
    torch.manual_seed(0)
    assert entered(Listening()) == {}


class Strict(Skipping):
    """Does not go on with nothing."""

    def forward(self, x):
        early = self.first(x)
        if not early.any():
            raise ValueError("nothing")
        return self.third(self.second(early)).mean((2, 3))


def test_a_network_that_does_not_bear_a_point_is_resumed_before():
    torch.manual_seed(0)
    assert entered(Strict()) == {"second": "first", "third": "first"}


def test_images_of_several_batches_stand_together_as_they_would_in_one():
    torch.manual_seed(0)
    model, images = ModelSpec("cifar-resnet8", 10).build().eval(), torch.rand(7, 3, 32, 32)
    (resume_point,) = find_resume_points(model, (3, 32, 32), ["layer2.0.conv1"]).values()
    all_activations = [reach(model, resume_point, part) for part in images.split(3)]
    rows = torch.tensor([1, 2, 3, 6])
    own = chosen(all_activations, [3, 3, 1], rows)
    with torch.inference_mode():
        with resume_from(model, own):
            found = model(torch.zeros(4, 3, 32, 32))
        torch.testing.assert_close(found, model(images[rows]))


def test_what_has_no_row_for_each_image_cannot_be_chosen_from():
    """As where a stem gives a sequence first, or more rows than images."""
    place = ResumePoint("stem", ("stem",), 4)
    for shape in ((5, 3, 2), (6, 2)):
        assert chosen([Activations(place, torch.zeros(shape), {})], [3], torch.tensor([0, 2])) is None
    activations = Activations(place, torch.zeros(3, 2), {"other": torch.Size((5, 3))})
    assert chosen([activations], [3], torch.tensor([0, 2])) is None
