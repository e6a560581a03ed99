"""--target onnx-latency: the latency of the exported network in ONNX Runtime, with the real runtime."""

import importlib.util
import statistics
import time

import pytest
import torch
from torch import nn

import ice_ray
from ice_ray.engine.allocation import allocation_for, find
from ice_ray.engine.config import parse_target, target_words
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.onnx_latency import onnx_latency_share
from ice_ray.engine.onnx_layers import PricedFootprint
from ice_ray.engine.target import ratio_for
from ice_ray.errors import UserError
from ice_ray.models.exported import write_module
from ice_ray.pruning.amounts import Amounts

onnxruntime = pytest.importorskip("onnxruntime")
CPU = torch.device("cpu")
SHAPE = (3, 16, 16)
IMAGES = torch.randn(96, *SHAPE, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(96) % 4


class Net(nn.Module):
    """Two wide layers that hold nearly all of the time, behind and before narrow ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 64, 3, padding=1)
        self.second, self.last = nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.last(self.second(self.first(self.stem(x).relu()).relu()).relu()).relu()
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def network(model):
    return DenseNetwork(model, SHAPE)


@pytest.fixture(scope="module")
def pruning_data():
    return ice_ray.given_data((IMAGES, LABELS), (IMAGES, LABELS))


def session(module, file):
    """Of another hand: the file of the exporter, in a session of one thread."""
    write_module(module, SHAPE, "onnx", file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def share(dense, pruned, folder) -> float:
    """In turns, the median of the processor's time of a batch of 64."""
    sessions = {name: session(each, folder / f"{name}.onnx") for name, each in (("dense", dense), ("pruned", pruned))}
    noise = torch.randn(64, *SHAPE).numpy()
    times = {name: [] for name in sessions}
    for _ in range(30):
        for name, each in sessions.items():
            began = time.process_time()
            each.run(None, {"images": noise})
            times[name].append(time.process_time() - began)
    return statistics.median(times["pruned"][5:]) / statistics.median(times["dense"][5:])


@pytest.mark.slow
def test_a_smaller_network_takes_less_and_the_dense_one_as_much_as_itself(network):
    measured = onnx_latency_share(network)
    whole = {unit.layer: unit.filters for unit in network.units}
    assert measured(network.build(CPU)) == pytest.approx(1, abs=0.15)
    halves = measured(network.build_pruned({layer: filters // 2 for layer, filters in whole.items()}, CPU))
    quarters = measured(network.build_pruned({layer: filters // 4 for layer, filters in whole.items()}, CPU))
    assert quarters < halves < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx-latency=0.6", "onnx-latency=0.7 params=0.5"])
def test_what_is_allocated_is_as_fast_as_asked_for_in_widths_that_the_runtime_likes(
    network, pruning_data, target, tmp_path
):
    found = allocation_for(parse_target(target), network, Amounts(0.5), pruning_data, 0, CPU, "fp32")
    asked = {each.quantity: each.share for each in parse_target(target)[0]}
    assert all(left <= asked[quantity] for quantity, left in found.shares)
    assert [quantity for quantity, _ in found.shares] == list(asked)
    assert all(width % 4 == 0 for _, width in found.widths)
    again = share(network.build(CPU), network.build_pruned(dict(found.widths), CPU), tmp_path)
    assert again <= asked["onnx-latency"] + 0.1
    assert f"{found.share:.3f} of the latency (ONNX Runtime, one thread, batch 64)" in found.words


def test_layers_that_are_measured_alone_rank_widths_as_the_whole_network_does(network):
    widths = {unit.layer: [4, 8, 16, 32, 64][: 5 if unit.filters == 64 else 3] for unit in network.units}
    priced, measured = PricedFootprint(network, widths), onnx_latency_share(network)
    narrow = {layer: own[1] for layer, own in widths.items()}
    middle = {layer: own[-1] // 2 for layer, own in widths.items()}
    told = [priced.share("onnx-latency", each) for each in (narrow, middle, {})]
    really = [measured(network.build_pruned(each, CPU)) for each in (narrow, middle)]
    assert told[0] < told[1] < told[2] == 1
    assert told[:2] == pytest.approx(really, abs=0.25)
    unit = network.units[0]
    along = priced.along("onnx-latency", middle, unit)
    assert len(along) == unit.filters + 1
    assert along[middle[unit.layer]] == pytest.approx(told[1])
    assert priced.share("macs", middle) == network.footprint.share("macs", middle)


@pytest.mark.slow
def test_the_users_own_rounding_goes_before_the_runtimes(network, pruning_data):
    amounts = Amounts(0.5, round_to=12)
    found = allocation_for(parse_target("onnx-latency=0.7"), network, amounts, pruning_data, 0, CPU, "fp32")
    filters = {unit.layer: unit.filters for unit in network.units}
    assert all(width % 12 == 0 or width == filters[layer] for layer, width in found.widths)


def test_without_images_one_ratio_holds_in_widths_that_the_runtime_likes(network):
    found = ratio_for(parse_target("onnx-latency=0.6")[0], network, Amounts(0.5), CPU, "fp32")
    assert found.share <= 0.6
    assert found.widths == tuple(
        (unit.layer, unit.filters - Amounts(found.ratio, round_to=4).removed(unit)) for unit in network.units
    )
    assert found.on(Amounts(0.5)).allocation is not None
    assert found.words.startswith(f"ratio {found.ratio:g} leaves {found.share:.3f} of the latency (ONNX Runtime")


@pytest.mark.slow
def test_what_is_out_of_reach_is_said_with_what_the_least_widths_leave(network, pruning_data):
    with pytest.raises(UserError, match=r"target onnx-latency=0\.01 is out of reach: the greatest .* leaves 0\.\d+; "):
        allocation_for(parse_target("onnx-latency=0.01"), network, Amounts(0.5), pruning_data, 0, CPU, "fp32")


def test_a_missing_package_is_named_before_anything_is_measured(network, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("ice_ray.export_formats.find_spec", lambda name: None if name == "onnxscript" else found(name))
    with pytest.raises(UserError, match=r"^target onnx-latency needs onnxscript, not .*pip install 'ice_ray\[onnx\]'$"):
        find(parse_target("onnx-latency=0.5"), network, Amounts(0.5), CPU, "fp32")


@pytest.mark.slow
def test_a_pruned_model_is_as_fast_as_asked_for(model, tmp_path):
    result = ice_ray.prune(
        model,
        (IMAGES, LABELS),
        (IMAGES, LABELS),
        target="onnx-latency=0.6",
        calibration_images=64,
        reconstruction_epochs=1,
        device="cpu",
        progress=False,
    )
    assert share(model, result.model, tmp_path) <= 0.7
    assert "latency (ONNX Runtime, one thread, batch 64)" in result.description["config"]["found"]


def test_whose_latency_it_is_stands_beside_a_target():
    assert target_words("latency=0.5") == "latency=0.5 (PyTorch, batch 64)"
    assert target_words("onnx-latency=0.5 params=0.5") == (
        "onnx-latency=0.5 (ONNX Runtime, one thread, batch 64) params=0.5"
    )
    with pytest.raises(UserError, match="onnx-latency="):
        parse_target("onnx_latency=0.5")
