"""Networks that look at the order of values in memory: used in the layout that they bear, everywhere, and saved so."""

import json

import pytest
import torch
import torch.nn.functional as F
from ice_runs import PAPER
from torch import nn

from ice_ray import IceHyperparameters, load_pruned, prune
from ice_ray.artifact import DESCRIPTION, save_pruned
from ice_ray.data.images import PruningData
from ice_ray.engine.latency import latencies
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.opening import open_module, trained_for_a_step
from ice_ray.exporter import export
from ice_ray.models.layout import layout_of
from ice_ray.models.registry import ModelSpec
from ice_ray.pruning.removal import remove_filters, widths_of
from ice_ray.pruning.selection import Selection

CPU = torch.device("cpu")
SHAPE = (3, 8, 8)


def convolution(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())


class Viewing(nn.Module):
    """The most common head there is."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(convolution(3), convolution(8))
        self.head = nn.Linear(512, 10)

    def flat(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.view(maps.size(0), -1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.flat(self.features(images)))


class InTrainingAlone(Viewing):
    def flat(self, maps):
        return maps.view(maps.size(0), -1) if self.training else maps.flatten(1)


class OtherAnswers(Viewing):
    """No error in either layout: memory is read as it comes."""

    def flat(self, maps):
        return maps.as_strided((len(maps), maps[0].numel()), (maps[0].numel(), 1))


@pytest.mark.parametrize("kind", [Viewing, InTrainingAlone, OtherAnswers])
@pytest.mark.parametrize("repair", ["none", "reconstruction"])
def test_a_network_that_reads_memory_in_order_is_pruned(kind, repair, data: PruningData):
    torch.manual_seed(0)
    model = kind().eval()
    options = PAPER | {"batch_size": 64, "repair": repair, "calibration_images": 100, "criterion": "taylor"}
    hyperparameters = IceHyperparameters(1.0, 0.3, 0.02, 5e-3, 0.15, 50)
    results = [
        prune(model, data, ratio=0.5, hyperparameters=hyperparameters, device="cpu", **options) for _ in range(2)
    ]
    assert [record.filters_removed for record in results[0].records] == [4] * len(results[0].records)
    first, second = (result.model.state_dict() for result in results)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert results[0].model(torch.randn(3, *SHAPE)).shape == (3, 10)


def test_what_bears_channels_last_has_it_as_ever(network: DenseNetwork):
    assert network.layout == "channels_last"
    weight = network.build(CPU).conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_all_forms_of_a_network_have_its_layout():
    network, selection = DenseNetwork.verified(Viewing(), SHAPE)
    assert network.layout == "contiguous"
    assert not selection.faulty
    pruned = network.build_pruned({"features.0.0": 4, "features.1.0": 6}, CPU)
    for model in (network.build(CPU), pruned, network.for_inference(pruned)):
        assert all(parameter.is_contiguous() for parameter in model.parameters())
        assert len(latencies(model, SHAPE, 4, CPU, "fp32", repeats=3)) == 3
    assert DenseNetwork(Viewing(), SHAPE, layout="contiguous").layout == "contiguous"


def test_a_network_that_would_answer_otherwise_answers_as_it_did():
    torch.manual_seed(0)
    model, images = OtherAnswers().eval(), torch.randn(2, *SHAPE)
    torch.testing.assert_close(DenseNetwork(model, SHAPE).build(CPU)(images), model(images))


def saved(folder) -> nn.Module:
    network = DenseNetwork(Viewing(), SHAPE)
    pruned = network.build_pruned({"features.0.0": 4}, CPU)
    widths = widths_of(pruned, network.steps)
    spec = ModelSpec("mine:build", 10)
    save_pruned(folder, spec, SHAPE, widths, pruned.state_dict(), {}, layout=network.layout)
    return pruned


def test_the_layout_is_saved_and_loaded(tmp_path):
    pruned = saved(tmp_path)
    loaded = load_pruned(tmp_path, builder=Viewing)
    images = torch.randn(2, *SHAPE)
    assert torch.equal(loaded(images), pruned(images))
    assert json.loads((tmp_path / DESCRIPTION).read_text())["layout"] == "contiguous"
    assert export(tmp_path, "torch", builder=Viewing).is_file()


def test_cut_and_saved_without_a_word_of_the_layout(tmp_path):
    model, images = Viewing().eval(), torch.randn(2, *SHAPE)
    remove_filters(model, SHAPE, {"features.0.0": (0, 1)})
    save_pruned(tmp_path, ModelSpec("mine:build", 10), SHAPE, {"features.0.0": 6}, model.state_dict(), {})
    assert torch.equal(load_pruned(tmp_path, builder=Viewing)(images), model(images))


def test_files_from_before_the_layout_was_saved_are_loaded(tmp_path):
    spec = ModelSpec("cifar-resnet8", 10)
    save_pruned(tmp_path, spec, SHAPE, {}, spec.build().state_dict(), {})
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    del description["layout"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(description))
    assert load_pruned(tmp_path).conv1.weight.is_contiguous(memory_format=torch.channels_last)


class Downsampled(nn.Module):
    """A shortcut by a pointwise convolution with a stride."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.inner, self.outer = nn.Conv2d(channels, 24, 3, stride=2, padding=1), nn.Conv2d(24, 24, 3, padding=1)
        self.shortcut, self.head = nn.Conv2d(channels, 24, 1, stride=2), nn.Linear(24, 10)

    def forward(self, x):
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.outer(F.relu(self.inner(x))) + self.shortcut(x)).mean((2, 3)))


@pytest.mark.parametrize(("channels", "layout"), [(4, "contiguous"), (8, "channels_last")])
def test_what_would_write_beyond_its_memory_is_not_tried(channels, layout):
    assert DenseNetwork(Downsampled(channels), (3, 8, 8)).layout == layout


def test_nor_where_pruning_leaves_so_few_channels():
    """Only on the way to its widths: dense, and with as many as it bears, it works in channels_last."""
    opening = open_module(Downsampled(12), (3, 8, 8), Selection(coupled=True))
    assert opening.network.layout == "channels_last"
    widths = {unit.layer: unit.filters for unit in opening.network.units}
    assert trained_for_a_step(opening, widths, "fp32").network.layout == "channels_last"
    assert trained_for_a_step(opening, widths | {"stem": 6}, "fp32").network.layout == "contiguous"


def test_nor_where_a_pipeline_may_leave_so_few():
    """What chooses widths as it goes says beforehand only how few there may be."""
    opening = open_module(Downsampled(12), (3, 8, 8), Selection(coupled=True))
    widths = {unit.layer: unit.filters for unit in opening.network.units}
    assert trained_for_a_step(opening, widths, "fp32", is_certain=False).network.layout == "contiguous"
    inner = open_module(Downsampled(12), (3, 8, 8), Selection(exclude=("stem",)))
    widths = {unit.layer: unit.filters for unit in inner.network.units}
    assert trained_for_a_step(inner, widths, "fp32", is_certain=False).network.layout == "channels_last"


def test_nor_once_it_is_cut_or_loaded(tmp_path):
    model = Downsampled(12).eval()
    remove_filters(model, SHAPE, {"stem": tuple(range(6))})
    assert model.shortcut.weight.shape[1] == 6
    assert layout_of(model) == "contiguous"
    save_pruned(tmp_path, ModelSpec("mine:build", 10), SHAPE, {"stem": 6}, model.state_dict(), {})
    assert layout_of(load_pruned(tmp_path, builder=lambda: Downsampled(12))) == "contiguous"
