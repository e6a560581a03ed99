"""Runs in which attention heads go: chosen, removed, repaired, saved and written for other runtimes."""

import copy

import pytest
import torch
from models.test_attention import drawn, small_swin, small_vit
from pruning.test_heads import Net
from torch import nn
from torchvision.models import vit_b_16

import ice_ray
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.work import multiply_adds
from ice_ray.models.attention import MultiheadAttention
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.config import LayerwisePruneConfig
from ice_ray.pruning.selection import Selection

pytestmark = pytest.mark.filterwarnings("ignore:dense")  # the networks are untrained
SHAPE = (3, 32, 32)
CPU = torch.device("cpu")
OPTIONS = {
    **{"ratio": 0.5, "device": "cpu", "calibration_images": 32, "prune": LayerwisePruneConfig(heads=True)},
    "hyperparameters": ice_ray.IceHyperparameters(float("inf"), 0.0, 0.01, 0.0, 0.0, 0),
}


def vit():
    return small_vit(num_classes=5)


def swin():
    return small_swin(num_classes=5)


def images(count=64):
    drawn_by = torch.Generator().manual_seed(0)
    pixels = torch.randn(count, *SHAPE, generator=drawn_by)
    return pixels, torch.randint(5, (count,), generator=drawn_by)


def heads_of(network):
    return {unit.layer: unit for unit in network.units if unit.heads}


def test_heads_go_only_where_they_are_asked_for():
    usual = DenseNetwork(vit(), SHAPE)
    assert not heads_of(usual)
    assert all(type(own) is not MultiheadAttention for own in usual.build(CPU).modules())
    network, selection = DenseNetwork.verified(drawn(vit()), SHAPE, Selection(heads=True))
    assert not selection.faulty
    first, _ = heads_of(network).values()
    assert (first.layer, first.filters) == ("encoder.layers.encoder_layer_0.self_attention", 4)
    assert first.consumers == (f"{first.layer}.out_proj",)
    assert first.owners == (f"{first.layer}.in_proj",)
    assert dict(first.columns) == {f"{first.layer}.out_proj": tuple(head for head in range(4) for _ in range(8))}
    # Steps in the order in which the network runs: an attention, then the block's hidden layer.
    steps = [step.name.rpartition(".")[2] for step in network.steps]
    assert steps == ["self_attention", "0", "self_attention", "0"]
    assert "heads of" in network.refused[f"{first.layer}.in_proj"]


def test_an_attention_that_is_left_out_stays_the_user_s():
    network = DenseNetwork(vit(), SHAPE, Selection(heads=True, exclude=("*layer_0.self_attention",)))
    first, second = (layer.self_attention for layer in network.build(CPU).encoder.layers)
    assert type(first) is nn.MultiheadAttention
    assert type(second) is MultiheadAttention
    assert not any("layer_0.self_attention" in trace.name for trace in network.traces)


def test_frozen_attentions_of_torch_stay_whole_and_frozen():
    model = vit()
    model.encoder.layers[0].self_attention.requires_grad_(False)
    network = DenseNetwork(model, SHAPE, Selection(heads=True))
    assert list(heads_of(network)) == ["encoder.layers.encoder_layer_1.self_attention"]
    frozen = {name for name, each in network.build(CPU).named_parameters() if not each.requires_grad}
    assert frozen == {name for name, each in model.named_parameters() if not each.requires_grad}


def test_a_ratio_of_0_spares_an_attention_and_counts_it_all_the_same(tmp_path):
    model, data = drawn(vit()), images()
    config = LayerwisePruneConfig(heads=True, ratios=("*layer_0.self_attention=0",))
    result = ice_ray.prune(model, data, data, repair="none", **{**OPTIONS, "prune": config})
    whole, network = DenseNetwork(model, SHAPE, Selection(heads=True)), result.model
    assert [layer.self_attention.num_heads for layer in network.encoder.layers] == [4, 2]
    assert result.original_macs == sum(multiply_adds(whole.build(CPU), trace) for trace in whole.traces)
    result.save(tmp_path / "pruned")
    loaded = ice_ray.load_pruned(tmp_path / "pruned", builder=vit)
    with torch.no_grad():
        torch.testing.assert_close(loaded(data[0]), network(data[0]), rtol=0, atol=0)


def test_frozen_attentions_stay_whole():
    model = Net()
    model.attention.queries.requires_grad_(False)
    with pytest.raises(ice_ray.UserError, match="frozen"):
        DenseNetwork(model, SHAPE, Selection(heads=True))


def test_a_head_is_left_of_every_attention():
    network = DenseNetwork(vit(), SHAPE, Selection(heads=True), Amounts(0.9, round_to=8))
    assert {Amounts(0.9, round_to=8).removed(unit) for unit in heads_of(network).values()} == {3}


@pytest.mark.parametrize(("build", "criterion"), [(vit, "residual"), (swin, "l1"), (Net, "taylor"), (Net, "random")])
def test_heads_are_chosen_by_any_criterion_and_what_comes_of_it_loads(build, criterion, tmp_path):
    model, data = drawn(build()), images()
    before = copy.deepcopy(model.state_dict())
    result = ice_ray.prune(model, data, data, criterion=criterion, repair="least-squares", **OPTIONS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    network = DenseNetwork(model, SHAPE, Selection(heads=True))
    widths = {unit.layer: unit.filters - Amounts(0.5).removed(unit) for unit in heads_of(network).values()}
    assert {path: result.model.get_submodule(path).num_heads for path in widths} == widths
    result.save(tmp_path / "pruned")
    loaded = ice_ray.load_pruned(tmp_path / "pruned", builder=build)
    with torch.no_grad():
        torch.testing.assert_close(loaded(data[0]), result.model(data[0]), rtol=0, atol=0)


def test_a_head_that_says_nothing_goes_first_and_nothing_changes():
    model, data = drawn(Net()).eval(), images()
    with torch.no_grad():
        model.attention.projection.weight[:, 8:16] = 0
    wanted = model(data[0])
    result = ice_ray.prune(model, data, data, criterion="residual", repair="none", **{**OPTIONS, "ratio": 0.3})
    assert result.model.attention.num_heads == 2
    assert torch.equal(
        result.model.attention.queries.weight, model.attention.queries.weight[[*range(8), *range(16, 24)]]
    )
    with torch.no_grad():
        torch.testing.assert_close(result.model(data[0]), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [vit, swin], ids=["ViT", "Swin"])
def test_the_projection_makes_up_for_heads_that_are_gone(build):
    """Least squares bring the answers nearer to the dense network's than bare removal leaves them."""
    model, data = drawn(build()).eval(), images()
    with torch.no_grad():
        wanted = model(data[0])
        errors = [
            float(
                (
                    ice_ray.prune(model, data, data, criterion="l1", repair=repair, **OPTIONS).model(data[0]) - wanted
                ).norm()
            )
            for repair in ("none", "least-squares", "reconstruction")
        ]
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] < 0.8 * errors[0]


def exported(result, data, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="an extra of the package")
    with torch.no_grad():
        wanted = result.model(data)
    session = onnxruntime.InferenceSession(str(result.export(tmp_path / "pruned.onnx")))
    found = session.run(None, {session.get_inputs()[0].name: data.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-3, atol=1e-3)
    program = torch.export.load(str(result.export(tmp_path / "pruned.pt2"))).module()
    torch.testing.assert_close(program(data), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("build", [vit, pytest.param(swin, marks=pytest.mark.slow)])
def test_networks_with_fewer_heads_are_written_for_other_runtimes(build, tmp_path):
    data = images()
    result = ice_ray.prune(drawn(build()), data, data, repair="none", **OPTIONS)
    exported(result, data[0][:3], tmp_path)  # another batch than the one that it was traced with


@pytest.mark.slow
def test_vit_b_16_loses_half_of_the_heads_of_two_blocks(tmp_path):
    torch.manual_seed(0)
    model = vit_b_16(num_classes=5)
    nn.init.normal_(model.heads.head.weight)
    data = torch.randn(4, 3, 224, 224), torch.arange(4)
    config = LayerwisePruneConfig(heads=True, include=("*layer_0.self_attention", "*layer_11.self_attention"))
    result = ice_ray.prune(model, data, data, repair="none", batch_size=4, **{**OPTIONS, "prune": config})
    assert [layer.self_attention.num_heads for layer in result.model.encoder.layers] == [6, *[12] * 10, 6]
    result.save(tmp_path / "saved")
    loaded = ice_ray.load_pruned(tmp_path / "saved", builder=lambda: vit_b_16(num_classes=5))
    with torch.no_grad():
        torch.testing.assert_close(loaded(data[0]), result.model(data[0]), rtol=0, atol=0)
    exported(result, data[0][:3], tmp_path)
