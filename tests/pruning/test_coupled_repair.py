"""Filters of several layers that go together: chosen, removed, and all that read them repaired."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from repairing import SHAPE, calibration, pictures, repair_context, scoring, with_statistics
from torch import Tensor, nn

from ice_ray.engine.actions import Repair, Score
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.models.partial_forward import reads_and_gives
from ice_ray.models.trace import trace_layers
from ice_ray.models.units import PrunableUnit, columns_now, rows_now
from ice_ray.pruning.criteria import criterion_named
from ice_ray.pruning.criteria.residual import Elimination
from ice_ray.pruning.removal import remove_filters
from ice_ray.pruning.selection import Selection
from ice_ray.repair.calibration_images import judging
from ice_ray.repair.least_squares import problem_of, refit
from ice_ray.repair.normal_equations import NormalEquations, Positions, input_rows, output_rows, positions_of
from ice_ray.repair.reconstruction import reconstruct
from ice_ray.repair.repair import repair, sections
from ice_ray.repair.step_problems import StepProblems
from ice_ray.training.fine_tune import Recipe

CPU = torch.device("cpu")


class Block(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + x)


class Residual(nn.Module):
    """A stem, blocks around one stream of 8 channels, and two readers behind."""

    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(*(Block(8, 6) for _ in range(blocks)))
        self.behind, self.head = nn.Conv2d(8, 5, 3), nn.Linear(13, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.stem(x))))
        return self.head(torch.cat([F.relu(self.behind(x)).mean((2, 3)), x.mean((2, 3))], 1))


def residual(blocks: int = 2) -> tuple[nn.Module, PrunableUnit]:
    torch.manual_seed(1)
    model, all_of_it = with_statistics(Residual(blocks)), tuple(range(8))
    owners = tuple((f"blocks.{number}.conv2", all_of_it) for number in range(blocks))
    readers = tuple((f"blocks.{number}.conv1", all_of_it) for number in range(blocks))
    columns = (*readers, ("behind", all_of_it), ("head", (-1,) * 5 + all_of_it))
    return model, PrunableUnit("stem", 8, tuple(reader for reader, _ in columns), coupled=owners, columns=columns)


def doubled(model: nn.Module) -> None:
    """The second half of the stream says the same as the first, twice as loud."""
    norms = [(model.stem, model.bn), *((block.conv2, block.bn2) for block in model.blocks)]
    with torch.no_grad():
        for conv, norm in norms:
            conv.weight[4:] = conv.weight[:4]
            for own in (norm.running_mean, norm.running_var):
                own[4:] = own[:4]
            for own in (norm.weight, norm.bias):
                own[4:] = 2 * own[:4]


def context_of(model: nn.Module, dense: nn.Module, units: tuple[PrunableUnit, ...], batch: int = 48, **structure):
    traces = trace_layers(dense, SHAPE)
    norms = {trace.name: trace.norm for trace in traces}
    branches = [layer for unit in units for layer, _ in unit.coupled]
    order, images = [trace.name for trace in traces], calibration(pictures(), batch)
    positions = {trace.name: trace.positions for trace in traces}
    own = {"residual_branches": branches, "positions": positions} | structure
    return repair_context(model, dense, units, norms, order, images, (0, "step", 1), **own)


def repaired(dense: nn.Module, unit: PrunableUnit, kind: str, gone: tuple[int, ...], epochs: float = 0.0):
    model, removed = copy.deepcopy(dense), {unit.layer: gone}
    own = context_of(model, dense, (unit,))
    return model, repair(own, StepProblems(), kind, removed, lambda: remove_filters(model, SHAPE, removed), epochs)


@pytest.mark.parametrize("gone", [(4, 5, 6, 7), (0, 5), (1, 2, 4, 7)])
def test_channels_of_a_stream_that_others_say_too_go_without_a_trace(gone):
    dense, unit = residual()
    doubled(dense)
    expected = dense(pictures())
    bare = copy.deepcopy(dense)
    remove_filters(bare, SHAPE, {"stem": gone})
    assert (bare(pictures()) - expected).abs().max() > 0.02
    model, outcome = repaired(dense, unit, "least-squares", gone)
    assert [conv.out_channels for conv in (model.stem, model.blocks[0].conv2, model.blocks[1].conv2)] == [
        8 - len(gone)
    ] * 3
    assert set(unit.consumers) <= set(outcome.refitted)
    assert not outcome.norms_estimated
    torch.testing.assert_close(model(pictures()), expected, atol=2e-3, rtol=1e-3)


def stream_error(model: nn.Module, dense: nn.Module, left: list[int]) -> float:
    def stream(own: nn.Module) -> Tensor:
        return own.blocks(F.relu(own.bn(own.stem(pictures()))))

    with torch.no_grad():
        wanted = stream(dense)[:, left]
        return float((stream(model) - wanted).square().sum() / wanted.square().sum())


def test_each_repair_brings_the_stream_that_is_left_nearer_to_the_dense_network_s():
    dense, unit = residual(3)
    gone = (1, 4, 6)
    left = [index for index in range(8) if index not in gone]
    bare = copy.deepcopy(dense)
    remove_filters(bare, SHAPE, {"stem": gone})
    least, _ = repaired(dense, unit, "least-squares", gone)
    trained, outcome = repaired(dense, unit, "reconstruction", gone, 20)
    errors = [stream_error(each, dense, left) for each in (bare, least, trained)]
    assert errors[2] < 0.9 * errors[1] < 0.5 * errors[0]
    assert set(outcome.reconstructed) == {f"blocks.{number}.bn2" for number in range(3)}
    assert all(after < before for before, after in outcome.reconstructed.values())


def test_a_step_is_repaired_block_after_block():
    dense, unit = residual()
    found = sections(context_of(dense, dense, (unit,)))
    assert [section.touched for section in found] == [
        ("stem", "blocks.0.conv1", "blocks.0.conv2"),
        ("blocks.1.conv1", "blocks.1.conv2"),
        ("behind",),
        ("head",),
    ]
    assert [section.ends for section in found] == [("blocks.0.conv2",), ("blocks.1.conv2",), (), ()]


@given(st.data())
def test_maps_to_filters_as_they_are_now_follow_each_filter_through_removals(drawn):
    """Oracle: every dense filter has a name of its own, and lists of names are cut."""
    width = drawn.draw(st.integers(2, 8))
    anywhere = st.integers(-1, width - 1)
    partner, column = (tuple(drawn.draw(st.lists(anywhere, min_size=1, max_size=9))) for _ in range(2))
    unit = PrunableUnit("root", width, ("reader",), coupled=(("partner", partner),), columns=(("reader", column),))
    left = sorted(drawn.draw(st.sets(st.integers(0, width - 1), min_size=1)))
    kept = {"root": tuple(left), "partner": tuple(i for i, name in enumerate(partner) if name in (-1, *left))}
    named = [left[place] if place >= 0 else -1 for place in dict(rows_now(unit, kept))["partner"]]
    assert named == [name for name in partner if name in (-1, *left)]
    expected = [name for name in column if name in (-1, *left)]
    found = columns_now([unit], unit, "reader", kept, len(expected))
    assert [left[place] if place >= 0 else -1 for place in found] == expected
    assert columns_now([unit], unit, "reader", kept, len(expected) + 1) is None


def test_columns_that_another_unit_has_lost_are_gone():
    """A concatenation of two layers of which one has been cut: by hand."""
    first = PrunableUnit("first", 2, ("reader",), columns=(("reader", (0, 1, -1, -1, -1)),))
    second = PrunableUnit("second", 3, ("reader",), columns=(("reader", (-1, -1, 0, 1, 2)),))
    kept = {"first": (1,), "second": (0, 2)}
    assert columns_now([first, second], second, "reader", kept, 3) == (-1, 0, 1)
    assert columns_now([first, second], first, "reader", kept, 3) == (0, -1, -1)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_an_elimination_s_rises_are_those_of_refits_without_the_filter(drawn):
    """Oracle: least squares solved anew; inputs of a filter anywhere, in either group, or nowhere."""
    groups, area, filters = drawn.draw(st.integers(1, 2)), drawn.draw(st.integers(1, 2)), 3
    channels = groups * drawn.draw(st.integers(1, 3))
    columns = torch.tensor(drawn.draw(st.lists(st.integers(-1, 2), min_size=channels, max_size=channels)))
    torch.manual_seed(drawn.draw(st.integers(0, 99)))
    x = torch.randn(groups, 60, channels // groups * area, dtype=torch.float64)
    y = torch.randn(groups, 60, 2, dtype=torch.float64) + x.sum(dim=2, keepdim=True)
    equations = NormalEquations(groups, x.shape[2], 2, False, CPU)
    equations.add(x, y)
    of_inputs = columns.view(groups, -1).repeat_interleave(area, dim=1)

    def error(gone: set[int]) -> float:
        total = 0.0
        for group in range(groups):
            left = [i for i, which in enumerate(of_inputs[group].tolist()) if which not in gone]
            total += (
                float(
                    (y[group] - x[group][:, left] @ torch.linalg.lstsq(x[group][:, left], y[group]).solution)
                    .square()
                    .sum()
                )
                if left
                else float(y[group].square().sum())
            )
        return total / float(y.square().sum())

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ice_ray.pruning.criteria.residual._MANY", drawn.draw(st.sampled_from([1, 128])))
        own, gone = Elimination(equations, columns, filters), set[int]()
        for which in drawn.draw(st.permutations(range(filters))):
            rises = own.rises()
            for other in set(range(filters)) - gone:
                assert float(rises[other]) == pytest.approx(error(gone | {other}) - error(gone), abs=1e-4)
            assert all(float(rises[each]) == float("inf") for each in gone)
            own.remove(which)
            gone.add(which)
            weights = own.weights
            assert weights.shape == (groups, x.shape[2], 2)
            for group in range(groups):
                lost = torch.tensor([which in gone for which in of_inputs[group].tolist()])
                assert not weights[group, lost].any()
                if not lost.all():
                    best = torch.linalg.lstsq(x[group][:, ~lost], y[group]).solution
                    assert torch.allclose(weights[group, ~lost], best, atol=1e-3)


def test_the_order_is_that_of_refits_of_all_readers_together():
    """Oracle: at every step each channel left is tried by solving the least squares of every reader anew."""
    dense, unit = residual()
    order = criterion_named("residual").score(scoring("residual", context_of(dense, dense, (unit,))))["stem"]
    problems = []
    for reader in unit.consumers:
        layer = dense.get_submodule(reader)
        given_, output = reads_and_gives(dense, reader, pictures())
        most = 16 if positions_of(layer, output) > 16 else positions_of(layer, output)
        positions = Positions.drawn(48, positions_of(layer, output), most, (0, "step", 1, reader, 0, 0), CPU)
        size = output.shape[2:] if isinstance(layer, nn.Conv2d) else output.shape[1:-1]
        x = input_rows(layer, given_, size, positions)[0].double()
        y = output_rows(layer, output, positions).double().clone()
        fitted = (~judging(48)).repeat_interleave(positions.of_image.shape[1])
        x, y = x[fitted], y[fitted]
        if reader.startswith("blocks"):
            norm = dense.get_submodule(reader.replace("conv1", "bn1"))
            y *= (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double()
        columns = torch.tensor(dict(unit.columns)[reader]).repeat_interleave(
            x.shape[1] // len(dict(unit.columns)[reader])
        )
        problems.append((x - x.mean(0), y - y.mean(0), columns))
    left = list(range(8))

    def error(filters: list[int]) -> float:
        total = 0.0
        for x, y, columns in problems:
            own = x[:, [which in (-1, *filters) for which in columns.tolist()]]
            total += float(((y - own @ torch.linalg.lstsq(own, y).solution).square().sum() / y.square().sum()).detach())
        return total

    while len(left) > 3:
        goes = min(left, key=lambda which: error([each for each in left if each != which]))
        assert int(order[goes]) == 8 - len(left)
        left.remove(goes)


def test_what_frees_more_goes_before_what_costs_as_little():
    """Option A by hand: the middle two of four channels are in another layer, too, and all four say the same."""
    torch.manual_seed(0)

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.narrow, self.wide, self.reader = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.reader(self.wide(x) + F.pad(self.narrow(x), (0, 0, 0, 0, 1, 1))).flatten(1)

    model = Padded().eval()
    with torch.no_grad():
        model.wide.weight[:] = model.wide.weight[:1]
        model.narrow.weight.zero_()
        model.reader.weight[:] = torch.randn(2, 1, 1, 1)
    unit = PrunableUnit("wide", 4, ("reader",), coupled=(("narrow", (1, 2)),), columns=(("reader", (0, 1, 2, 3)),))
    context = context_of(model, model, (unit,))
    each = 8 * 8 * (27 + 2)
    assert context.freed(unit).tolist() == [each, each + 64 * 27, each + 64 * 27, each]
    order = criterion_named("residual").score(scoring("residual", context))["wide"]
    assert {int(order[1]), int(order[2])} == {0, 1}
    stays = context_of(model, model, (replace(unit, fixed=(1,)),))
    assert stays.freed(stays.units[0]).tolist() == [each, 0, each + 64 * 27, each]
    order = criterion_named("residual").score(scoring("residual", stays))["wide"]
    assert order[2] == 0
    assert order[1] == 4  # behind all that may go


def test_criteria_add_up_what_goes_together():
    """By hand, of an owner of which one filter goes with none: l1, l2, root mean square and norms' factors."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3)
    )
    with torch.no_grad():
        model[0].weight[:] = torch.tensor([3.0, -1.0])[:, None, None, None]
        model[2].weight[:] = torch.tensor([[4.0, 0.0], [100.0, 100.0], [2.0, -2.0]])[:, :, None, None]
        model[1].weight[:], model[3].weight[:] = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 9.0, 0.25])
    unit = PrunableUnit("0", 2, ("2",), coupled=(("2", (0, -1, 1)),))
    context = repair_context(model, model, (unit,), {"0": "1", "2": "3"}, ["0", "2"], calibration(pictures()))
    scores = {
        name: criterion_named(name).score(scoring(name, context))["0"] for name in ("l1", "l2", "l2-fan-in", "bn-scale")
    }
    assert scores["l1"].tolist() == [7, 5]
    assert scores["l2"].tolist() == pytest.approx([5, 3])
    assert scores["l2-fan-in"].tolist() == pytest.approx([5 / 3**0.5, 3 / 3**0.5])
    assert scores["bn-scale"].tolist() == [1.5, 2.25]


@pytest.mark.parametrize("name", ["mean-activation", "taylor", "entropy", "entropy-densities"])
def test_criteria_of_activations_add_up_those_of_every_layer(name):
    """Oracle: each layer scored as a unit of its own."""
    dense, unit = residual()
    together = criterion_named(name).score(scoring(name, context_of(dense, dense, (unit,))))["stem"]
    alone = [PrunableUnit(layer, 8, unit.consumers) for layer in unit.owners]
    expected = criterion_named(name).score(scoring(name, context_of(dense, dense, tuple(alone))))
    torch.testing.assert_close(together, torch.stack(list(expected.values())).sum(dim=0))


@pytest.fixture
def coupled_network(data):
    """Its steps are those of two blocks, of the stream, and of the layer behind."""
    torch.manual_seed(0)
    model = with_pictures_of(data, Residual())
    network = DenseNetwork(model, data.train.image_shape, Selection(coupled=True))
    assert [[unit.layer for unit in step.units] for step in network.steps] == [
        ["blocks.0.conv1"],
        ["blocks.1.conv1"],
        ["stem"],
        ["behind"],
    ]
    return network


def with_pictures_of(data, model: nn.Module) -> nn.Module:
    model.train()
    with torch.no_grad():
        model(data.train.images[:200].permute(0, 3, 1, 2).float() / 255)
    return model.eval()


def executor_of(network: DenseNetwork, data) -> TorchExecutor:
    return TorchExecutor(network, data, Recipe(batch_size=64), 0, CPU)


STREAM = Repair(3, "reconstruction", (("stem", (0, 3)),), 100, 1.0, "residual")
BLOCKS = [Repair(number, "reconstruction", ((f"blocks.{number - 1}.conv1", (1, 2)),), 100, 1.0) for number in (1, 2)]


BEHIND = Repair(4, "reconstruction", (("behind", (1,)),), 100, 1.0)


@pytest.mark.parametrize("actions", [[*BLOCKS, STREAM, BEHIND], [BEHIND, STREAM, *BLOCKS], [STREAM, BLOCKS[0], STREAM]])
def test_every_order_works_and_a_run_that_was_stopped_goes_on_with_the_same_bits(coupled_network, data, actions):
    executor = executor_of(coupled_network, data)
    snapshot = executor.root
    for action in actions:
        executor.run(snapshot, Score(action.step, "residual", 100))
        outcome = executor.run(snapshot, action)
        assert outcome.value.reconstructed
        assert not outcome.value.norms_estimated
        assert outcome.cost.flops > 0
        snapshot = outcome.snapshot
    whole = executor.commit(snapshot)
    stored, snapshot = None, executor.root
    for action in actions:
        other = executor_of(coupled_network, data)
        if stored is not None:
            other.store.put(stored)
        stored = other.commit(other.run(snapshot, action).snapshot)
        snapshot = stored.id
    assert whole.kept == stored.kept
    assert all(torch.equal(stored.tensors[name], value) for name, value in whole.tensors.items())


def test_passes_that_begin_within_a_step_change_no_bit(coupled_network, data, monkeypatch):
    found = []
    for most in (2**28, 0):
        monkeypatch.setattr("ice_ray.engine.calibrator.MOST_BYTES", most)
        executor = executor_of(coupled_network, data)
        scores = executor.run(executor.root, Score(3, "residual", 100)).value["stem"]
        found.append(
            (scores, executor.commit(executor.run(executor.root, replace(STREAM, kind="least-squares")).snapshot))
        )
    (scores, own), (others, other) = found
    assert torch.equal(scores, others)
    assert all(torch.equal(other.tensors[name], value) for name, value in own.tensors.items())


class Lanes(nn.Module):
    """Two linear layers that run along the channels of a stream, position by position mixed, as in an MLP-Mixer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 10)
        self.mix, self.back = nn.Linear(25, 12), nn.Linear(12, 25)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2)
        x = x + self.back(self.mix(x).relu())
        return self.head(x.mean(2))


def test_layers_along_channels_that_are_gone_are_repaired_towards_those_that_are_left():
    """Each channel is what it was in the dense network: nothing is to be repaired, if the right ones are compared."""
    torch.manual_seed(0)
    dense = Lanes().eval()
    network = DenseNetwork(dense, SHAPE, Selection(coupled=True, include=("*",)))
    (unit,) = (unit for unit in network.units if unit.lanes)
    positions = tuple(range(8))
    assert "it runs along channels" in network.refused["back"]
    assert (unit.layer, unit.lanes) == ("stem", (("mix", positions), ("back", positions)))
    removed, model = {"stem": (1, 4, 5)}, copy.deepcopy(dense)
    remove_filters(model, SHAPE, removed)
    own = context_of(model, dense, network.units, residual_branches=("back",)).without(removed)
    assert own.lanes("back").tolist() == [0, 2, 3, 6, 7]
    problem = problem_of(own, "back")
    assert refit(own, "back", problem)[0] < 1e-9
    errors, _ = reconstruct(own, ["back"], ["back"], 1.0)
    assert errors["back"][0] < 1e-9
    with torch.no_grad():
        model.back.weight += 0.1 * torch.randn_like(model.back.weight)
    assert refit(own, "back", problem_of(own, "back"))[0] > 0.01
