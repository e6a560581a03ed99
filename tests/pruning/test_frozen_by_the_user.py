"""What a model's user holds fixed (requires_grad=False) keeps its values, stays whole, and comes back fixed."""

import json
import warnings

import pytest
import torch
from ice_runs import PAPER
from torch import Tensor, nn

from ice_ray import IceHyperparameters, load_pruned, prune
from ice_ray.artifact import save_pruned
from ice_ray.config.jobs import InspectConfig
from ice_ray.engine.actions import FineTune, Mask, Prune, Reinitialise
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.errors import UserError
from ice_ray.models.registry import ModelSpec
from ice_ray.pipelines.base import FinalConfig
from ice_ray.pruning.config import LayerwisePruneConfig
from ice_ray.pruning.removal import widths_of
from ice_ray.pruning.selection import Selection
from ice_ray.training.fine_tune import Recipe
from ice_ray.workflow.inspection import inspect_job
from ice_ray.workflow.running import run

CPU = torch.device("cpu")
POINT = IceHyperparameters(0.1, 0.5, 0.02, 5e-3, 0.15, 50)  # with the freezing probe
OPTIONS = PAPER | {"batch_size": 64, "final": FinalConfig(epochs=1)}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))).relu()


class Net(nn.Module):
    """Three blocks between a stem and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(Block(), Block(), Block())
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x).relu()).mean((2, 3)))


def net(*frozen: str) -> Net:
    torch.manual_seed(0)
    model = Net().eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(name.startswith(prefix) for prefix in frozen))
    return model


def frozen_of(model: nn.Module) -> list[str]:
    return [name for name, each in model.named_parameters() if not each.requires_grad]


FROZEN = ("stem", "blocks.0.conv1.weight", "blocks.1.conv2", "blocks.2.bn1")


def test_frozen_layers_stay_whole_and_so_does_what_they_read():
    network = DenseNetwork(net(*FROZEN), (3, 8, 8))
    assert [unit.layer for unit in network.units] == ["blocks.2.conv1"]
    said = "frozen (requires_grad=False); prune.include takes it all the same"
    assert network.refused["blocks.0.conv1"] == f"its weights are {said}"
    assert network.refused["blocks.1.conv1"] == f"the weights of blocks.1.conv2, which would be cut with it, are {said}"
    assert not set(network.freezable) & {"blocks.0.conv1", "blocks.1.conv2"}


def test_depthwise_filters_that_are_frozen_stay_whole_too():
    layers = [nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model[1].requires_grad_(False)
    network = DenseNetwork(model, (3, 8, 8))
    assert [unit.layer for unit in network.units] == ["3"]
    assert network.refused["0"].startswith("the weights of 1, which would be cut")


def test_what_is_asked_for_by_name_is_pruned_all_the_same():
    network = DenseNetwork(net(*FROZEN), (3, 8, 8), Selection(include=("blocks.0.conv1", "blocks.1.*")))
    assert [unit.layer for unit in network.units] == ["blocks.0.conv1", "blocks.1.conv1"]


def test_a_frozen_backbone_leaves_nothing_to_prune_and_that_is_said():
    with pytest.raises(UserError, match=r"its weights are frozen \(requires_grad=False\); prune.include takes it"):
        DenseNetwork(net("stem", "blocks"), (3, 8, 8))


@pytest.mark.parametrize("repair", ["none", "bn", "least-squares", "reconstruction"])
def test_frozen_values_are_the_same_bits_and_come_back_frozen(repair, data):
    model = net(*FROZEN)
    options = OPTIONS | {"repair": repair, "calibration_images": 64, "reconstruction_epochs": 1.0}
    result = prune(model, data, ratio=0.5, hyperparameters=POINT, device="cpu", **options).model
    assert frozen_of(result) == frozen_of(model)
    before, after = dict(model.named_parameters()), dict(result.named_parameters())
    kept = [name for name in frozen_of(model) if name not in ("blocks.2.bn1.weight", "blocks.2.bn1.bias")]
    assert len(kept) == 5
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert len(after["blocks.2.bn1.weight"]) == 4
    assert bool((after["blocks.2.bn1.weight"] == 1).all())
    assert bool((after["blocks.2.bn1.bias"] == 0).all())
    assert not torch.equal(before["head.weight"], after["head.weight"])


def test_filters_that_are_pruned_on_request_keep_their_values(data):
    model = net(*FROZEN)
    options = OPTIONS | {"prune": LayerwisePruneConfig(include=("blocks.0.conv1", "blocks.2.conv1"))}
    result = prune(model, data, ratio=0.5, hyperparameters=POINT, device="cpu", **options).model
    left, dense = result.blocks[0].conv1.weight, model.blocks[0].conv1.weight
    assert len(left) == 4
    assert all(any(torch.equal(one, other) for other in dense) for one in left)
    assert "blocks.0.conv1.weight" in frozen_of(result)


@pytest.mark.parametrize("action", [Mask(0.5), Reinitialise(("test",))])
def test_nothing_masks_or_redraws_them(action, data):
    model = net(*FROZEN)
    executor = TorchExecutor(DenseNetwork(model, (3, 8, 8)), data, Recipe(batch_size=64), 0, CPU)
    changed = dict(executor.module(executor.run(executor.root, action).snapshot).named_parameters())
    before = dict(model.named_parameters())
    assert all(torch.equal(before[name], changed[name]) for name in frozen_of(model))
    assert not torch.equal(before["blocks.2.conv1.weight"], changed["blocks.2.conv1.weight"])


def test_the_weights_of_a_run_that_holds_some_fixed_are_named_apart_from_those_of_one_that_does_not(data):
    roots = {
        TorchExecutor(DenseNetwork(net(*frozen), (3, 8, 8)), data, Recipe(), 0, CPU).root for frozen in ((), ("stem",))
    }
    assert len(roots) == 2


def test_a_fine_tune_leaves_them_frozen_and_all_else_free(data):
    model = net("stem")
    executor = TorchExecutor(DenseNetwork(model, (3, 8, 8)), data, Recipe(batch_size=64), 0, CPU)
    pruned = executor.run(executor.root, Prune((("blocks.0.conv1", (0, 1)),))).snapshot
    tuned = executor.run(pruned, FineTune(("step", 1), 0.01, 1, "constant", ("blocks.1.conv1",))).snapshot
    assert frozen_of(executor.module(tuned)) == ["stem.weight", "stem.bias"]
    executor.commit(tuned)
    executor.run(executor.root, Prune((("blocks.0.conv1", (0, 1)),)))
    assert frozen_of(executor.module(tuned)) == ["stem.weight", "stem.bias"]  # built anew


def test_a_model_in_inference_mode_is_pruned_as_if_nothing_were_frozen_and_that_is_said(data):
    model = net("")
    with pytest.warns(UserWarning, match="all parameters of the model are frozen"):
        frozen = prune(model, data, ratio=0.5, hyperparameters=POINT, device="cpu", **OPTIONS).model
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*are frozen")
        free = prune(net(), data, ratio=0.5, hyperparameters=POINT, device="cpu", **OPTIONS).model
    assert all(torch.equal(value, free.state_dict()[key]) for key, value in frozen.state_dict().items())
    assert len(frozen_of(frozen)) == len(list(frozen.parameters()))
    assert not frozen_of(free)


def test_a_saved_model_comes_back_with_the_same_parameters_frozen(tmp_path):
    model = net(*FROZEN)
    network = DenseNetwork(model, (3, 8, 8))
    pruned = network.build_pruned({"blocks.2.conv1": 3}, CPU)
    spec, widths = ModelSpec("mine:net", 10), widths_of(pruned, network.steps)
    save_pruned(tmp_path, spec, (3, 8, 8), widths, pruned.state_dict(), {}, network.frozen)
    assert frozen_of(load_pruned(tmp_path, lambda: net(*FROZEN))) == frozen_of(model)
    assert frozen_of(load_pruned(tmp_path, net)) == frozen_of(model)
    description = json.loads((tmp_path / "model.json").read_text())
    del description["frozen"]  # as before there was such an entry
    (tmp_path / "model.json").write_text(json.dumps(description))
    assert frozen_of(load_pruned(tmp_path, lambda: net(*FROZEN))) == frozen_of(model)
    assert not frozen_of(load_pruned(tmp_path, net))


@pytest.mark.parametrize("frozen", ["stem", 3, [1], {"a": 1}])
def test_a_damaged_entry_is_refused(frozen, tmp_path):
    network = DenseNetwork(net(), (3, 8, 8))
    save_pruned(tmp_path, ModelSpec("mine:net", 10), (3, 8, 8), {}, network.build(CPU).state_dict(), {})
    path = tmp_path / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"frozen": frozen}))
    with pytest.raises(UserError, match="damaged"):
        load_pruned(tmp_path, net)


def test_inspection_says_why(tmp_path, monkeypatch, capsys):
    (tmp_path / "frozen_model.py").write_text(
        "from torch import nn\n"
        "def build(num_classes):\n"
        "    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(),\n"
        "        nn.Conv2d(6, num_classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "    model[0].requires_grad_(False)\n"
        "    return model\n"
    )
    monkeypatch.chdir(tmp_path)
    assert run(inspect_job, InspectConfig, "ice_inspect.py", ["--model", "frozen_model:build"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "the model holds 0.weight, 0.bias fixed (requires_grad=False)" in text
    assert "0: its weights are frozen (requires_grad=False)" in text
