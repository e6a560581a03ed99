"""A step's layers trained by themselves: what they aim at, what they may touch, and what must never become worse."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from repairing import NETWORKS, Case, pictures
from torch import nn

from ice_ray.data.batches import Shard, evaluation_batches
from ice_ray.engine.actions import Repair, Score
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.models.partial_forward import End, outputs_at
from ice_ray.pruning.selection import lowest
from ice_ray.repair import reconstruction
from ice_ray.repair.calibration_images import judging
from ice_ray.training.fine_tune import Recipe

CPU = torch.device("cpu")


def reconstructed(case: Case, removed: tuple[int, ...], epochs: float = 10.0):
    """The network with filters removed and its step reconstructed, and what that has come to."""
    return case.repaired("reconstruction", removed, epochs)


@pytest.mark.parametrize("name", NETWORKS)
def test_more_is_reproduced_than_by_least_squares_alone(name):
    case = Case(name, 1000)
    for removed in ((0, 1, 4, 5), (2, 6)):
        model, outcome = reconstructed(case, removed)
        assert outcome.reconstructed
        assert all(after < before for before, after in outcome.reconstructed.values())
        refitted, errors = case.pruned("least-squares", removed)
        assert outcome.refitted == errors  # it begins with that
        wanted = case.dense(case.images)
        least, own = ((network(case.images) - wanted).square().mean() for network in (refitted, model))
        assert own < least or name == "several readers"  # there the ends are layers, the network's outputs their means


def test_what_is_learnt_by_heart_is_refused():
    """300 inputs and 36 images: training leaves next to nothing of these, and more of the twelve that judge."""
    case = Case("hidden units")
    model, outcome = reconstructed(case, (0, 1, 4, 5))
    assert outcome.reconstructed
    assert all(before == after for before, after in outcome.reconstructed.values())
    expected, _ = case.pruned("least-squares", (0, 1, 4, 5))
    assert all(torch.equal(expected.state_dict()[key], value) for key, value in model.state_dict().items())


def test_the_error_is_that_of_the_layer_s_own_outputs():
    """By hand: what is left, of the images that judge, of the mean square of what the reader's norm gives in the dense
    network.
    """
    case = Case("batch norm and activation")
    model, outcome = reconstructed(case, (0, 1, 4, 5))
    ((end, (before, after)),) = outcome.reconstructed.items()
    assert end == "parts.4"
    images = pictures()
    refitted, _ = case.pruned("least-squares", (0, 1, 4, 5))
    with torch.no_grad():
        wanted = case.dense.parts(images)
        for network, found in ((refitted, before), (model, after)):
            left = (network.parts(images) - wanted)[judging(48)].square().mean() / wanted.square().mean()
            assert found == pytest.approx(float(left), rel=1e-4)


def test_what_stood_for_all_is_left_alone_where_training_makes_it_worse(monkeypatch):
    """A rate at which everything diverges: least squares' weights come back, to the bit."""
    monkeypatch.setattr(reconstruction, "RATE", 1e30)
    case = Case("batch norm and activation")
    model, outcome = reconstructed(case, (0, 1, 4, 5))
    assert all(before == after for before, after in outcome.reconstructed.values())
    expected, _ = case.pruned("least-squares", (0, 1, 4, 5))
    assert all(torch.equal(expected.state_dict()[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("rate", "part"), [(0.1, 1.0), (0.3, 0.5), (0.5, 0.25), (2.0, 0.0)])
def test_weights_go_as_far_as_the_images_that_judge_like_best(monkeypatch, rate, part):
    """By hand: of five points on the way, the one with the least error; a higher rate leads too far."""
    errors = {}

    def looked_at(parameters, start, aim, before):
        ends = [each.detach().clone() for each in parameters]
        ways = [
            torch.stack([begun + quarter / 4 * (end - begun) for quarter in range(5)])
            for begun, end in zip(start, ends, strict=True)
        ]
        for quarter in range(5):
            for own, way in zip(parameters, ways, strict=True):
                own.data.copy_(way[quarter])
            errors[quarter / 4] = sum(aim.errors())
        for own, end in zip(parameters, ends, strict=True):
            own.data.copy_(end)
        found = chosen(parameters, start, aim, before)
        for own, way in zip(parameters, ways, strict=True):
            torch.testing.assert_close(own.detach(), way[int(4 * part)])
        return found

    chosen = reconstruction._as_far_as_helps
    monkeypatch.setattr(reconstruction, "_as_far_as_helps", looked_at)
    monkeypatch.setattr(reconstruction, "RATE", rate)
    _, outcome = reconstructed(Case("batch norm and activation"), (0, 1, 4, 5), epochs=2.0)
    ((before, after),) = outcome.reconstructed.values()
    assert min(errors, key=errors.__getitem__) == part
    assert (before, after) == pytest.approx((errors[0.0], errors[part]), rel=1e-4)


@pytest.mark.parametrize(
    ("positions", "expected"),
    [({}, ["conv", "head"]), ({"conv": 2, "head": 2}, ["conv", "head"]), ({"head": 1}, ["conv"])],
)
def test_what_has_few_positions_for_its_size_is_not_made_orthogonal(positions, expected):
    """A step of a matrix (m, n), m <= n, takes 10 to 15 m m n multiply-adds, the passes of 32 images 96 m n for each
    position: with m at 16 for each it takes twice as long as these.
    """
    model = nn.ModuleDict(
        {"conv": nn.Conv2d(3, 32, 3), "depthwise": nn.Conv2d(32, 32, 3, groups=32), "head": nn.Linear(40, 32)}
    )
    context = Case("batch norm and activation").context(model)
    context = replace(context, structure=replace(context.structure, positions=positions))
    found = {id(each) for each in reconstruction._matrices(context)}
    assert [name for name, layer in model.items() if id(layer.weight) in found] == expected


def removal(executor: TorchExecutor, step: int, snapshot: str = "") -> tuple[tuple[str, tuple[int, ...]], ...]:
    scored = executor.run(snapshot or executor.root, Score(step, "l1")).value
    return tuple((layer, lowest(each, len(each) // 2)) for layer, each in scored.items())


def repaired(executor: TorchExecutor, kind: str, step: int = 2, images: int = 200, epochs: float = 12.0):
    outcome = executor.run(executor.root, Repair(step, kind, removal(executor, step), images, epochs=epochs))
    return executor.commit(outcome.snapshot).tensors, outcome


def fresh(network: DenseNetwork, data) -> TorchExecutor:
    return TorchExecutor(network, data, Recipe(batch_size=64), 0, CPU)


def test_only_the_step_s_layers_and_their_norms_factors_change(network, data):
    least, _ = repaired(fresh(network, data), "least-squares")
    own, outcome = repaired(fresh(network, data), "reconstruction")
    changed = {key for key, value in own.items() if not torch.equal(value, least[key])}
    block = [f"layer2.0.{name}" for name in ("conv1.weight", "conv2.weight")]
    norms = [f"layer2.0.{norm}.{name}" for norm in ("bn1", "bn2") for name in ("weight", "bias")]
    assert changed == {*block, *norms}
    assert set(outcome.value.reconstructed) == {"layer2.0.bn2"}


def test_it_aims_at_the_sum_that_the_block_ends_in(network, data):
    """By hand, with the block's own parts: the branch and the shortcut, and the activation that alone reads them."""
    executor = fresh(network, data)
    _, outcome = repaired(executor, "reconstruction", step=2, images=100)
    sample = executor._calibrator._images.take(100)
    images = next(evaluation_batches(sample, data.preprocessing, 100, Shard()))[0]
    model, dense = executor.module(outcome.snapshot), network.build(CPU)

    def summed(own: nn.Module) -> torch.Tensor:
        x = own.layer1(F.relu(own.bn1(own.conv1(images))))
        block = own.layer2[0]
        return F.relu(block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x))))) + block.shortcut(x))

    with torch.no_grad():
        wanted = summed(dense)
        left = (summed(model) - wanted)[judging(100)].square().mean() / wanted.square().mean()
    before, after = outcome.value.reconstructed["layer2.0.bn2"]
    assert after == pytest.approx(float(left), rel=1e-4)
    assert after < before


def test_the_same_seed_gives_the_same_bits_and_another_does_not(network, data):
    first, second = (repaired(fresh(network, data), "reconstruction")[0] for _ in range(2))
    assert all(torch.equal(second[key], value) for key, value in first.items())
    other = repaired(TorchExecutor(network, data, Recipe(batch_size=64), 1, CPU), "reconstruction")[0]
    assert any(not torch.equal(other[key], value) for key, value in first.items())


@pytest.mark.parametrize("limit", ["ice_ray.engine.calibrator.MOST_BYTES", "reconstruction.MOST_BYTES"])
def test_what_cannot_be_held_is_computed_again(network, data, monkeypatch, limit):
    """Activations before the step, or the dense network's outputs behind it."""
    held, _ = repaired(fresh(network, data), "reconstruction")
    if limit.startswith("reconstruction"):
        monkeypatch.setattr(reconstruction, "MOST_BYTES", 0)
    else:
        monkeypatch.setattr(limit, 0)
    again, _ = repaired(fresh(network, data), "reconstruction")
    for key, value in held.items():
        torch.testing.assert_close(again[key], value, atol=1e-3, rtol=1e-3)


@pytest.fixture
def rooms(monkeypatch):
    """What has been asked for to hold targets: bytes, and the types of what was given."""
    asked, own = [], reconstruction._rooms

    def noted(some, images, views):
        given = own(some, images, views)
        asked.append((sum(each.nbytes / len(each) for each in some) * images, [each.dtype for each in given]))
        return given

    monkeypatch.setattr(reconstruction, "_rooms", noted)
    return asked


def test_what_is_too_much_is_held_in_half_precision(network, data, monkeypatch, rooms):
    _, held = repaired(fresh(network, data), "reconstruction")
    ((size, kinds),) = rooms
    assert kinds == [torch.float32]
    monkeypatch.setattr(reconstruction, "MOST_BYTES", 0.6 * size)
    _, outcome = repaired(fresh(network, data), "reconstruction")
    assert rooms[-1] == (size, [torch.float16])
    assert outcome.value.targets_held
    ((_, after),), ((_, expected),) = (each.value.reconstructed.values() for each in (outcome, held))
    assert after == pytest.approx(expected, rel=0.01)
    monkeypatch.setattr(reconstruction, "MOST_BYTES", 0.4 * size)
    _, outcome = repaired(fresh(network, data), "reconstruction")
    assert rooms[-1] == (size, [])
    assert not outcome.value.targets_held


def test_what_half_precision_cannot_hold_is_computed_again(monkeypatch, rooms):
    case = Case("batch norm and activation")
    with torch.no_grad():
        case.dense.parts[4].weight.mul_(1e6)
    reconstructed(case, (0, 1, 4, 5))
    monkeypatch.setattr(reconstruction, "MOST_BYTES", 0.6 * rooms[-1][0])
    _, outcome = reconstructed(case, (0, 1, 4, 5))
    assert rooms[-1][1] == [torch.float16]
    assert not outcome.targets_held
    ((before, after),) = outcome.reconstructed.values()
    assert after < before


def test_nothing_is_left_to_have_gradients_that_had_none(network, data):
    executor = fresh(network, data)
    _, outcome = repaired(executor, "reconstruction")
    model = executor.module(outcome.snapshot)
    assert all(each.requires_grad and each.grad is None for each in model.parameters())
    assert not model.training


def test_every_epoch_costs_the_same(network, data):
    executor = fresh(network, data)
    one, two, three = (repaired(executor, "reconstruction", epochs=epochs)[1].cost.flops for epochs in (1, 2, 3))
    least = repaired(executor, "least-squares")[1].cost.flops
    assert least < one < two < three
    assert three - two == pytest.approx(two - one)


def mirroring(network: DenseNetwork, data) -> TorchExecutor:
    """Where training mirrors images."""
    return fresh(network, replace(data, preprocessing=replace(data.preprocessing, flip=True)))


@pytest.mark.parametrize("limit", [2**28, 0])
def test_mirrored_images_are_passed_from_where_they_stand_themselves(network, data, monkeypatch, limit):
    """Oracle: whole passes of images turned by hand; a network's output for them is not its output turned."""
    monkeypatch.setattr("ice_ray.engine.calibrator.MOST_BYTES", limit)
    executor = mirroring(network, data)
    model = executor.module(executor.root)
    action = Repair(2, "reconstruction", (), 100, 1.0)
    context = executor._calibrator.context(model, {}, action, executor.root)
    images = next(evaluation_batches(executor._calibrator._images.take(100), data.preprocessing, 100, Shard()))[0]
    ends, own = [End("layer2")], torch.tensor([3, 99, 103, 150, 199])
    with torch.no_grad():
        whole = outputs_at(model, ends, torch.stack([images[3], images[99], *(images[[3, 50, 99]].flip(3))]))[0]
        with context.images.passing(model, own) as given:
            found = outputs_at(model, ends, given)[0]
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(whole[0], whole[2].flip(2), atol=1e-2)


def test_where_training_mirrors_images_each_is_looked_at_both_ways_by_turns(network, data, monkeypatch):
    executor, seen = mirroring(network, data), []
    loss = reconstruction._Aim.loss
    monkeypatch.setattr(reconstruction._Aim, "loss", lambda aim, own: seen.append(own) or loss(aim, own))
    repaired(executor, "reconstruction", images=100, epochs=2)
    first, second = (torch.cat(seen[half : half + 3]) for half in (0, 3))
    trained = (~judging(100)).nonzero().flatten().tolist()
    assert len(seen) == 6 and len(trained) == 84
    assert sorted(first % 100) == sorted(second % 100) == trained
    assert sorted(torch.cat([first, second])) == [*trained, *(100 + each for each in trained)]
    assert 25 < int((first < 100).sum()) < 59
    monkeypatch.undo()
    whole, again = (repaired(mirroring(network, data), "reconstruction")[0] for _ in range(2))
    assert all(torch.equal(again[key], value) for key, value in whole.items())
    plain, _ = repaired(fresh(network, data), "reconstruction")
    assert any(not torch.equal(plain[key], value) for key, value in whole.items())


def test_mirrored_images_cost_a_pass_of_the_dense_network_and_what_leads_to_the_step(network, data):
    """By hand, of layer 2's block: its layers' multiply-adds, and those of the block before, in both networks."""
    plain, mirrored = (
        repaired(own, "reconstruction", images=100)[1] for own in (fresh(network, data), mirroring(network, data))
    )
    block = 16 * 9 * 32 * (16 + 32)
    before = 64 * 9 * 16 * 2 * 16
    assert mirrored.cost.flops - plain.cost.flops == pytest.approx(100 * 2 * (block + 2 * before))


class Bottleneck(nn.Module):
    """A block of three convolutions, the first two of which are pruned in one step."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.middle, self.expand = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return F.relu(x + self.expand(F.relu(self.middle(F.relu(self.reduce(x))))))


class Bottlenecks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(Bottleneck(), Bottleneck())
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def test_both_layers_of_a_bottleneck_are_trained_towards_what_the_third_gives(data):
    torch.manual_seed(0)
    network = DenseNetwork(Bottlenecks(), data.train.image_shape)
    assert {unit.layer for unit in network.steps[1].units} == {"blocks.1.reduce", "blocks.1.middle"}
    least, _ = repaired(fresh(network, data), "least-squares", step=2)
    own, outcome = repaired(fresh(network, data), "reconstruction", step=2)
    assert set(outcome.value.reconstructed) == {"blocks.1.expand"}
    changed = {key.removeprefix("blocks.1.") for key, value in own.items() if not torch.equal(value, least[key])}
    trained = {f"{layer}.{name}" for layer in ("reduce", "middle", "expand") for name in ("weight", "bias")}
    assert changed - {"head.weight", "head.bias"} == trained  # the head answers: refitted behind it


def all_steps(executor: TorchExecutor, together: float):
    """Every step reconstructed, and all of them together after the last; what the last has come to."""
    snapshot, steps = executor.root, executor.network.steps
    for step in steps:
        last = together if step is steps[-1] else 0.0
        action = Repair(step.number, "reconstruction", removal(executor, step.number, snapshot), 200, 2.0, None, last)
        outcome = executor.run(snapshot, action)
        snapshot = outcome.snapshot
        executor.commit(snapshot)
    return executor.store.get(snapshot).tensors, outcome


def test_after_the_last_step_all_layers_come_closer_to_the_dense_network_together(network, data):
    alone, before = all_steps(fresh(network, data), 0.0)
    joint, after = all_steps(fresh(network, data), 10.0)
    ends = {f"layer{stage}.0.bn2" for stage in (1, 2, 3)}
    assert not before.value.together
    assert set(after.value.together) == ends
    assert sum(left for _, left in after.value.together.values()) < sum(was for was, _ in after.value.together.values())
    changed = {key for key, value in joint.items() if not torch.equal(value, alone[key])}
    trained = {key for key in joint if key.startswith("layer") and key.endswith((".weight", ".bias"))}
    assert changed == trained | {"linear.weight", "linear.bias"}  # neither stem nor statistics; the head is refitted
    assert after.cost.flops > before.cost.flops


def test_the_head_is_refitted_to_what_it_reads_then(network, data):
    """Its bias takes up what is left on average, of what it is fitted to; activations from before would be those of
    what is no more.
    """
    executor = fresh(network, data)
    _, outcome = all_steps(executor, 10.0)
    sample = executor._calibrator._images.take(200)
    images = torch.cat([batch for batch, _ in evaluation_batches(sample, data.preprocessing, 100, Shard())])
    with torch.no_grad():
        left = executor.module(outcome.snapshot)(images) - network.build(CPU)(images)
    left = left[~judging(200)]
    assert left.std(dim=0).min() > 0.1
    assert left.mean(dim=0).abs().max() < 1e-3


def test_a_joint_reconstruction_that_makes_it_worse_changes_nothing(network, data, monkeypatch):
    monkeypatch.setattr(reconstruction, "RATE", 1e30)
    alone, _ = all_steps(fresh(network, data), 0.0)
    joint, outcome = all_steps(fresh(network, data), 1.0)
    assert outcome.value.together
    assert all(before == after for before, after in outcome.value.together.values())
    assert {key for key, value in joint.items() if not torch.equal(value, alone[key])} <= {
        "linear.weight",
        "linear.bias",
    }


def test_together_too_the_same_seed_gives_the_same_bits(network, data):
    first, second = (all_steps(fresh(network, data), 1.5)[0] for _ in range(2))
    assert all(torch.equal(second[key], value) for key, value in first.items())
