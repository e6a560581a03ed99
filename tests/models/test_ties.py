"""What is one tensor under several names stays one: pruned, trained, saved and loaded; or it is refused by name."""

import copy

import pytest
import safetensors.torch
import torch
from ice_runs import PAPER
from torch import Tensor, nn

from ice_ray import IceHyperparameters, load_pruned, prune
from ice_ray.artifact import save_pruned
from ice_ray.engine.actions import FineTune, Mask
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.snapshots import Snapshot
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.errors import UserError
from ice_ray.models.layout import lay_out
from ice_ray.models.registry import ModelSpec
from ice_ray.models.ties import ties_of
from ice_ray.models.weights import fit_weights, load_state_dict
from ice_ray.pruning.removal import remove_filters, widths_of
from ice_ray.tensor_files import read_tensors, tensors_size, write_tensors
from ice_ray.training.config import FineTuneConfig
from ice_ray.training.fine_tune import Recipe

SHAPE, CPU = (3, 8, 8), torch.device("cpu")
POINT = IceHyperparameters(0.1, 0.5, 0.02, 5e-3, 0.15, 50)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))).relu()


class Net(nn.Module):
    """Three blocks between a stem and a head; `kind` says what in them is one tensor."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem, self.blocks = nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(Block(), Block(), Block())
        self.head, self.other = nn.Linear(8, 10), nn.Linear(8, 10)
        if kind == "module":
            self.again = self.blocks[0]
        if kind == "weights":
            self.blocks[1].conv1.weight = self.blocks[0].conv1.weight
        if kind == "readers":
            self.blocks[1].conv2.weight = self.blocks[0].conv2.weight
        if kind == "norms":
            self.blocks[1].bn1.weight = self.blocks[0].bn1.weight
        if kind == "heads":
            self.other.weight = self.head.weight
        if kind == "memory":
            self.other.weight = nn.Parameter(self.head.weight.data)
        if kind == "buffer":
            self.register_buffer("seen", self.head.weight.data)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x).relu())
        x = self.again(x) if self.kind == "module" else x
        features = x.mean((2, 3))
        if self.kind == "buffer":
            return self.head(features) + features @ self.seen.T
        return self.head(features) + self.other(features)


KINDS = {
    "module": (),
    "weights": (("blocks.0.conv1.weight", "blocks.1.conv1.weight"),),
    "readers": (("blocks.0.conv2.weight", "blocks.1.conv2.weight"),),
    "norms": (("blocks.0.bn1.weight", "blocks.1.bn1.weight"),),
    "heads": (("head.weight", "other.weight"),),
    "memory": (("head.weight", "other.weight"),),
    "buffer": (("head.weight", "seen"),),
}


def net(kind: str) -> Net:
    torch.manual_seed(0)
    return Net(kind).eval()


def shared(model: nn.Module) -> set[frozenset[str]]:
    """Names of one memory, seen from outside."""
    named: dict[int, set[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.ndim:
            named.setdefault(tensor.data_ptr(), set()).add(name)
    return {frozenset(names) for names in named.values() if len(names) > 1}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_one_tensor_stays_one_from_end_to_end(kind, data, tmp_path):
    model = net(kind)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert tuple(ties_of(model)) == KINDS[kind]
    result = prune(model, data, ratio=0.5, hyperparameters=POINT, device="cpu", batch_size=64, **PAPER).model
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert shared(result) == shared(model)
    assert sum(each.numel() for each in result.parameters()) < sum(each.numel() for each in model.parameters())
    network = DenseNetwork.verified(model, SHAPE)[0]
    state = result.state_dict()
    save_pruned(tmp_path, ModelSpec("mine:net", 10), SHAPE, widths_of(result, network.steps), state, {})
    assert (tmp_path / "model.safetensors").stat().st_size >= tensors_size(state)
    loaded = load_pruned(tmp_path, lambda: net(kind))
    assert shared(loaded) == shared(model)
    images = torch.randn(4, *SHAPE)
    assert torch.equal(loaded(images), result(images))


@pytest.mark.parametrize(
    ("kind", "left", "layer", "said"),
    [
        ("weights", ["blocks.2.conv1"], "blocks.0.conv1", "one tensor together with blocks.1.conv1.weight"),
        ("readers", ["blocks.2.conv1"], "blocks.1.conv1", "blocks.1.conv2, which would be cut with it, holds one"),
        ("norms", ["blocks.2.conv1"], "blocks.0.conv1", "blocks.0.bn1, which would be cut with it, holds one tensor"),
    ],
)  # fmt: skip
def test_layers_that_would_come_apart_are_refused_by_name(kind, left, layer, said):
    network = DenseNetwork.verified(net(kind), SHAPE)[0]
    assert [unit.layer for unit in network.units] == left
    assert said in network.refused[layer]


def test_a_module_under_two_names_is_pruned_once():
    model = net("module")
    network = DenseNetwork.verified(model, SHAPE)[0]
    assert "blocks.0.conv1" in [unit.layer for unit in network.units]
    own = network.build(CPU)
    with torch.no_grad():
        for tensor in (own.blocks[0].conv1.weight, own.blocks[0].conv1.bias, own.blocks[0].bn1.bias):
            tensor[[1, 6]] = 0
    images = torch.randn(2, *SHAPE)
    expected = own(images)
    remove_filters(own, SHAPE, {"blocks.0.conv1": (1, 6)})
    torch.testing.assert_close(own(images), expected)
    assert own.again is own.blocks[0]
    assert own.again.conv2.in_channels == 6


@pytest.mark.parametrize("kind", ["weights", "heads", "memory"])
def test_a_step_of_training_moves_a_tensor_once(kind, data):
    model = net(kind)
    network = DenseNetwork(model, SHAPE)
    by_hand = copy.deepcopy(net("heads" if kind == "memory" else kind))  # one parameter, whose gradients add up
    recipe = Recipe(batch_size=64, options=FineTuneConfig(distil=False))
    results = []
    for own in (network, DenseNetwork(by_hand, SHAPE)):
        executor = TorchExecutor(own, data, recipe, 0, CPU)
        results.append(executor.module(executor.run(executor.root, FineTune(("t",), 0.01, 1, "constant", ())).snapshot))
    assert all(torch.equal(value, results[1].state_dict()[key]) for key, value in results[0].state_dict().items())
    first, second = KINDS[kind][0]
    assert results[0].get_parameter(first) is results[0].get_parameter(second)


def test_a_buffer_goes_with_its_parameter_while_that_is_trained(data):
    executor = TorchExecutor(
        DenseNetwork(net("buffer"), SHAPE), data, Recipe(batch_size=64, options=FineTuneConfig(distil=False)), 0, CPU
    )
    model = executor.module(executor.run(executor.root, FineTune(("t",), 0.01, 1, "constant", ())).snapshot)
    assert torch.equal(model.seen, model.head.weight)
    assert not torch.equal(model.seen, net("buffer").seen)


@pytest.mark.parametrize("kind", KINDS)
def test_the_layout_of_weights_leaves_ties(kind):
    model = net(kind)
    before = shared(model)
    lay_out(model)
    assert shared(model) == before


@pytest.mark.parametrize("kind", KINDS)
def test_snapshots_keep_ties_and_are_as_small(kind, data, tmp_path):
    executor = TorchExecutor(DenseNetwork(net(kind), SHAPE), data, Recipe(batch_size=64), 0, CPU)
    snapshot = executor.commit(executor.run(executor.root, Mask(0.3)).snapshot)
    snapshot.save(tmp_path / "s")
    loaded = Snapshot.load(tmp_path / "s")
    assert set(loaded.tensors) == set(snapshot.tensors)
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in snapshot.tensors.items())
    for first, second in KINDS[kind]:
        assert loaded.tensors[first] is loaded.tensors[second]
    held = {tensor.data_ptr(): tensor.nbytes for tensor in net(kind).state_dict().values()}
    assert (tmp_path / "s").stat().st_size < sum(held.values()) + 12_000


def test_masks_count_a_shared_weight_once(data):
    executor = TorchExecutor(DenseNetwork(net("weights"), SHAPE), data, Recipe(batch_size=64), 0, CPU)
    model = executor.module(executor.run(executor.root, Mask(0.5)).snapshot)
    layers = {module.weight for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    zeros, total = (sum(count) for count in zip(*((int((w == 0).sum()), w.numel()) for w in layers), strict=True))
    assert zeros == round(0.5 * total)


def test_files_hold_one_tensor_once_and_say_its_other_names(tmp_path):
    weight = torch.randn(1000)
    tensors = {"a": weight, "b": weight, "c": weight[:500], "d": weight.clone()}
    write_tensors(tmp_path / "f", tensors, {"id": "7"})
    assert (tmp_path / "f").stat().st_size < 4 * (1000 + 500 + 1000) + 500
    assert tensors_size(tensors) == pytest.approx(4 * 2500, abs=500)
    read, metadata = read_tensors(tmp_path / "f")
    assert metadata["id"] == "7"
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert read["a"] is read["b"]
    plain = safetensors.torch.load_file(tmp_path / "f")
    assert set(plain) == {"a", "c", "d"}


def test_weights_files_with_either_name_fit_and_those_that_contradict_are_refused(tmp_path):
    model = net("heads")
    state = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    safetensors.torch.save_model(net("heads"), str(tmp_path / "w.safetensors"))
    fit_weights(net("heads"), load_state_dict(tmp_path / "w.safetensors"), "w")
    for left_out in ("head.weight", "other.weight"):
        own = net("heads")
        fit_weights(own, {name: tensor for name, tensor in state.items() if name != left_out}, "w")
        assert torch.equal(own.head.weight, state["head.weight"])
        assert own.other.weight is own.head.weight
    with pytest.raises(UserError, match=r"different values for head\.weight and other\.weight, which are one tensor"):
        fit_weights(model, state | {"other.weight": state["head.weight"] * 2}, "w")


class Overlapping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 8, 1), nn.Linear(8, 8)
        self.back = nn.Linear(8, 8)
        self.back.weight = nn.Parameter(self.out.weight.data.t())

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.out(self.conv(x).mean((2, 3))))


def test_memory_that_is_shared_in_part_is_refused_before_anything_runs(data, tmp_path, monkeypatch):
    said = r"out\.weight and back\.weight of the model share memory without being one tensor"
    with pytest.raises(UserError, match=said):
        prune(Overlapping(), data, ratio=0.5, hyperparameters=POINT, device="cpu")
    (tmp_path / "overlapping.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))\n"
        "    model[1].weight = nn.Parameter(model[0].weight.data.t())\n"
        "    return model.double()\n"
    )
    monkeypatch.chdir(tmp_path)
    ModelSpec("overlapping:build", 8).build()  # the conversion to another number type has made copies
    (tmp_path / "overlapping_too.py").write_text((tmp_path / "overlapping.py").read_text().replace(".double()", ""))
    with pytest.raises(UserError, match=r"0\.weight and 1\.weight of the model share memory"):
        ModelSpec("overlapping_too:build", 8).build()


def test_a_builder_s_ties_outlive_a_change_of_its_number_type(tmp_path, monkeypatch):
    (tmp_path / "tied_model.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def build():\n"
        "    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).double()\n"
        "    model[1].weight = nn.Parameter(model[0].weight.data)\n"
        "    return model\n"
    )
    monkeypatch.chdir(tmp_path)
    assert shared(ModelSpec("tied_model:build", 8).build()) == {frozenset({"0.weight", "1.weight"})}
