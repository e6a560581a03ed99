"""Layers refitted: what must be reproduced exactly, and what may never become worse."""

import copy

import pytest
import torch
import torch.nn.functional as F
from repairing import (
    NETWORKS,
    SHAPE,
    Calibration,
    Case,
    calibration,
    live_bytes,
    pictures,
    repair_context,
    with_statistics,
)
from torch import nn

from ice_ray.data.batches import Shard
from ice_ray.data.images import FixedSample, ImageSet, Preprocessing
from ice_ray.distributed import SingleProcess
from ice_ray.engine.network import DenseNetwork
from ice_ray.models.registry import ModelSpec
from ice_ray.models.units import PrunableUnit
from ice_ray.pruning.removal import remove_filters
from ice_ray.repair import least_squares as refitting
from ice_ray.repair import repair as repair_room
from ice_ray.repair.batch_norms import recalibrate
from ice_ray.repair.calibration_images import CalibrationImages, judging
from ice_ray.repair.context import RepairContext
from ice_ray.repair.least_squares import norm_behind, problem_of
from ice_ray.repair.repair import repair
from ice_ray.repair.step_problems import StepProblems, assign, remaining_problem


def refitted(own: RepairContext, gone, shape=SHAPE) -> dict[str, tuple[float, float]]:
    """What least squares come to in a context's network, which loses filters."""
    outcome = repair(own, StepProblems(), "least-squares", gone, lambda: remove_filters(own.model, shape, gone))
    return outcome.refitted


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"groups"}))
def test_filters_that_others_can_stand_in_for_go_without_a_trace(name):
    """Half of the filters are multiples of the other half: refitted, the network answers as before."""
    case = Case(name)
    removed = (4, 5, 6, 7)
    expected = case.dense(pictures())
    untouched, _ = case.pruned("none", removed)
    assert (untouched(pictures()) - expected).abs().max() > 0.05
    repaired, errors = case.pruned("least-squares", removed)
    assert set(errors) == set(case.unit.consumers)
    assert all(after < 1e-9 < before for before, after in errors.values())
    torch.testing.assert_close(repaired(pictures()), expected, atol=2e-3, rtol=1e-3)


def test_every_group_is_fitted_by_itself():
    """Filters 1 and 3 of each group's four are multiples of 0 and 2."""
    case = Case("groups")
    layer, norm = case.dense.parts[0], case.dense.parts[1]
    with torch.no_grad():
        for kept, spare in ((0, 1), (2, 3), (4, 5), (6, 7)):
            layer.weight[spare] = 2 * layer.weight[kept]
            norm.weight[spare], norm.bias[spare] = 3 * norm.weight[kept], 3 * norm.bias[kept]
            norm.running_mean[spare] = 2 * norm.running_mean[kept]
            norm.running_var[spare] = 4 * norm.running_var[kept]
    recalibrate(case.dense, calibration(pictures(), 48), SingleProcess(), case.layer)
    repaired, errors = case.pruned("least-squares", (1, 3, 5, 7))
    assert all(after < 1e-9 < before for before, after in errors.values())
    torch.testing.assert_close(repaired(pictures()), case.dense(pictures()), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_refit_never_leaves_more_unexplained_than_there_was(name):
    case = Case(name)
    for removed in ((0, 1, 4, 5), (2, 6)):
        _, errors = case.pruned("least-squares", removed)
        assert errors
        assert all(after <= before + 1e-9 for before, after in errors.values())


def test_where_there_are_fewer_images_than_inputs_other_images_suffer_no_more():
    """Left to itself the fit would reproduce every calibration image, and nothing else."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Flatten(), nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 5)).eval()
    model, gone = copy.deepcopy(dense), {"1": tuple(range(0, 200, 2))}
    untouched = copy.deepcopy(model)
    remove_filters(untouched, SHAPE, gone)
    unit = PrunableUnit("1", 200, ("3",))
    factors = torch.randn(10, *SHAPE)  # images have something in common, else there is nothing to learn from them
    some, others = (torch.einsum("nf,fchw->nchw", torch.randn(count, 10), factors) for count in (80, 500))
    own = repair_context(model, dense, (unit,), {}, ["1", "3"], calibration(some, 20))
    errors = refitted(own, gone)
    assert errors["3"][1] < errors["3"][0]
    wanted = dense(others)
    before, after = ((each(others) - wanted).square().mean() for each in (untouched, model))
    assert after < before


@pytest.mark.parametrize("name", NETWORKS)
def test_a_problem_set_up_before_the_removal_is_the_one_after_it(name, monkeypatch):
    """What the kept filters give has not changed: so neither has what can be made of it."""
    case = Case(name)
    set_up = []
    monkeypatch.setattr(repair_room, "problem_of", lambda *given: set_up.append(given) or problem_of(*given))
    before, errors = case.pruned("least-squares", (2, 6))
    assert len(set_up) == len(case.unit.consumers) - 1  # the first reader's is not set up again
    monkeypatch.setattr(repair_room, "remaining_problem", lambda *_: None)
    after, expected = case.pruned("least-squares", (2, 6))
    assert {key: pytest.approx(value, abs=1e-6) for key, value in expected.items()} == errors
    for key, value in after.state_dict().items():
        torch.testing.assert_close(before.state_dict()[key], value, atol=1e-4, rtol=1e-3)


def test_behind_a_norm_over_channels_the_problem_is_set_up_anew():
    """There the filters that stay give something else than before."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Flatten(), nn.Linear(300, 8), nn.GroupNorm(1, 8), nn.ReLU(), nn.Linear(8, 5)).eval()
    unit, gone = PrunableUnit("1", 8, ("4",)), (0, 3, 4)
    model = copy.deepcopy(dense)
    own = repair_context(model, dense, (unit,), {}, ["1", "4"], calibration(pictures(), 24))
    whole = StepProblems().of_reader(own, "4")
    kept = [index for index in range(8) if index not in gone]
    for name in ("weight", "bias"):
        for layer in (model[1], model[2]):
            setattr(layer, name, nn.Parameter(getattr(layer, name)[kept]))
    model[2].num_channels = len(kept)
    model[4].weight = nn.Parameter(model[4].weight[:, kept])
    assert remaining_problem(own, "4", whole, 8, gone) is None
    model[2] = nn.Identity()
    assert remaining_problem(own, "4", whole, 8, gone) is None


class Standardised(nn.Conv2d):
    """Computes from its weights something else than a convolution with them."""

    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias)


def test_layers_that_do_something_of_their_own_are_left_alone():
    assert refitting.can_be_refitted(nn.Conv2d(3, 4, 3))
    assert refitting.can_be_refitted(nn.Linear(3, 4))
    assert not refitting.can_be_refitted(Standardised(3, 4, 3))
    assert not refitting.can_be_refitted(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)))
    assert not refitting.can_be_refitted(nn.BatchNorm2d(3))


def test_a_squeeze_and_excitation_is_refitted_with_the_block_around_it():
    """Its second layer loses filters with the layer that it gates, and reads those of its first."""
    torch.manual_seed(0)
    network = DenseNetwork(ModelSpec("torchvision:mobilenet_v3_small", 10).build(), (3, 32, 32))
    step = next(step for step in network.steps if any(unit.gates for unit in step.units))
    dense = network.build(torch.device("cpu"))
    model = network.build(torch.device("cpu"))
    gone = {unit.layer: tuple(range(0, unit.filters, 2)) for unit in step.units}
    images = torch.randn(40, 3, 32, 32)
    order = [trace.name for trace in network.traces]
    own = repair_context(model, dense, step.units, network.norms, order, calibration(images, 20))
    errors = refitted(own, gone, (3, 32, 32))
    assert {gate for unit in step.units for gate in unit.gates} <= set(errors)
    assert all(after <= before + 1e-9 for before, after in errors.values())


def test_a_layer_that_is_too_wide_is_left_alone(monkeypatch):
    monkeypatch.setattr(refitting, "WIDEST", 35)
    case = Case("batch norm and activation")
    weights = case.dense.parts[3].weight[:, :4].clone()
    model, errors = case.pruned("least-squares", (4, 5, 6, 7))
    assert errors == {}
    assert torch.equal(model.parts[3].weight, weights)


def test_memory_is_flat_in_the_number_of_images():
    """Live tensors, counted whenever a batch is fetched: no more at the last than at the second."""
    case, seen = Case("batch norm and activation"), []

    def given():
        for number in range(9):
            seen.append(live_bytes())
            yield pictures(8) + number, torch.zeros(8, dtype=torch.int64)

    model, images = copy.deepcopy(case.dense), Calibration(given)
    assert images.sizes == [8] * 9
    seen.clear()
    refitted(case.context(model, images), {case.layer: (0, 5)})
    reader = seen[-9:]  # before it, whether the layer reads what it did
    assert max(reader) <= max(reader[:2])


class Branch(nn.Module):
    """A residual branch behind a stem, and a layer that answers; all linear, so that what is lost can be had back."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1, bias=False)
        self.norm, self.second, self.last = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.last(self.second(self.norm(self.first(x))))
        return self.head(x.mean((2, 3)))


class TestBehindALayerThatHasDrifted:
    """The stem gives another basis of what it gave: the first layer can undo that, the branch make up for the sum."""

    @pytest.fixture
    def case(self):
        torch.manual_seed(2)
        dense = with_statistics(Branch())
        with torch.no_grad():
            dense.stem.weight.copy_(torch.randn(4, 3)[:, :, None, None])
        dense = with_statistics(dense)
        with torch.no_grad():
            dense.last.weight.uniform_(0.5, 2)
            dense.last.bias.uniform_(-1, 1)
        model = copy.deepcopy(dense)
        with torch.no_grad():
            mixed = torch.eye(4) + 0.3 * torch.randn(4, 4)
            model.stem.weight.copy_((mixed @ dense.stem.weight[:, :, 0, 0])[:, :, None, None])
            model.stem.bias.copy_(mixed @ dense.stem.bias + 0.1)
        return dense, model

    def repaired(self, case, **known):
        dense, model = case
        unit, gone = PrunableUnit("first", 8, ("second",)), {"first": (1, 4, 5, 7)}
        norms, order = {"first": "norm", "second": "last"}, ["stem", "first", "second", "head"]
        own = repair_context(model, dense, (unit,), norms, order, calibration(pictures(), 24), **known)
        errors = refitted(own, gone)
        return dense, model, errors

    def test_what_the_pruned_layer_reads_is_made_up_for_in_it(self, case):
        dense, model, _ = self.repaired(case)
        inner = dense.norm(dense.first(dense.stem(pictures())))[:, [0, 2, 3, 6]]
        torch.testing.assert_close(model.norm(model.first(model.stem(pictures()))), inner, atol=1e-3, rtol=1e-3)

    def test_the_branch_makes_up_for_the_sum(self, case):
        dense, model, errors = self.repaired(case, residual_branches=("second",))
        assert errors["second"][1] < 1e-6
        torch.testing.assert_close(model(pictures()), dense(pictures()), atol=2e-3, rtol=2e-3)

    def test_where_it_is_no_sum_it_gives_what_it_gave(self, case):
        dense, model, errors = self.repaired(case)
        branch = dense.last(dense.second(dense.norm(dense.first(dense.stem(pictures())))))
        found = model.last(model.second(model.norm(model.first(model.stem(pictures())))))
        torch.testing.assert_close(found, branch, atol=2e-3, rtol=2e-3)
        assert (model(pictures()) - dense(pictures())).abs().max() > 0.02
        assert set(errors) == {"second"}

    def test_after_the_last_step_the_answers_are_those_of_the_dense_network(self, case):
        dense, model, errors = self.repaired(case, answers="head")
        assert list(errors) == ["second", "head"]
        assert errors["head"][1] < 1e-6 < errors["head"][0]
        torch.testing.assert_close(model(pictures()), dense(pictures()), atol=2e-3, rtol=2e-3)

    def test_a_filter_that_is_not_heard_keeps_its_weights(self, case):
        for network in case:
            network.last.weight.data[2] = 0
        weights = case[1].second.weight[2, [0, 2, 3, 6]].clone()
        _, model, _ = self.repaired(case, residual_branches=("second",))
        assert torch.equal(model.second.weight[2], weights)
        assert all(tensor.isfinite().all() for tensor in model.state_dict().values())

    def test_a_norm_that_serves_others_too_is_not_touched(self, case):
        dense, model = case
        unit, gone = PrunableUnit("first", 8, ("second",)), {"first": (1, 4)}
        norms = {"first": "norm", "second": "last", "elsewhere": "last"}
        mean = model.last.running_mean.clone()
        refitted(repair_context(model, dense, (unit,), norms, ["first", "second"], calibration(pictures(), 24)), gone)
        assert torch.equal(model.last.running_mean, mean)

    def test_layers_of_one_step_are_made_ready_one_after_the_other(self, case):
        """The second reads what the first gives once that has been refitted."""
        dense, model = case
        units = (PrunableUnit("second", 4, ("head",)), PrunableUnit("first", 8, ("second",)))
        norms = {"first": "norm", "second": "last"}
        own = repair_context(model, dense, units, norms, ["first", "second"], calibration(pictures(), 24))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        ready = StepProblems().ready(own)
        assert list(ready) == ["first", "second"]
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        for values in ready.values():
            assign(model, values)
        branch = dense.last(dense.second(dense.norm(dense.first(dense.stem(pictures())))))
        found = model.last(model.second(model.norm(model.first(model.stem(pictures())))))
        torch.testing.assert_close(found, branch, atol=2e-3, rtol=2e-3)

    def test_a_norm_with_an_activation_in_it_is_not_aimed_at_sums(self, case):
        class Activating(nn.BatchNorm2d):
            def forward(self, x):
                return super().forward(x).relu()

        for network in case:
            network.last.__class__ = Activating
        aimed = self.repaired(copy.deepcopy(case), residual_branches=("second",))[1].state_dict()
        plain = self.repaired(copy.deepcopy(case))[1].state_dict()
        assert all(torch.equal(tensor, plain[name]) for name, tensor in aimed.items())

    def test_a_nearly_dead_filter_silences_no_other(self, case):
        """Its factor is great for want of variance; what is heard behind the norm is no more for that."""
        for network in case:
            network.last.running_var[1] = 1e-12
            network.last.running_mean[1] = 0
            network.second.weight.data[1] = 0
        own = norm_behind(case[1], "second", "last")
        assert own.heard.all()


@pytest.mark.parametrize(("images", "judges"), [(3, 0), (4, 1), (48, 12), (64, 16), (250, 16), (1000, 62), (2000, 125)])
def test_a_few_images_judge_what_the_others_have_taught(images, judges):
    assert int(judging(images).sum()) == judges
    assert torch.equal(judging(images), judging(images))


@pytest.mark.parametrize(("images", "world"), [(3, 2), (48, 5), (250, 1), (1000, 2), (1000, 7), (2000, 16)])
def test_processes_know_which_of_their_images_judge(images, world):
    """Oracle: an image's number stands in its first pixel."""
    numbers = torch.arange(images)
    pixels = torch.zeros(images, 2, 2, 3, dtype=torch.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = numbers % 256, numbers // 256
    sample = FixedSample(ImageSet(pixels, numbers), (0, "calibration"))
    order, seen = sample.take(images).labels, list[int]()
    expected = judging(images)
    for rank in range(world):
        own = CalibrationImages(sample, images, Preprocessing(), Shard(rank, world), lambda *_: None)
        counts = []
        for number, (_, labels) in enumerate(own.batches()):
            judges = own.judges_of(number)
            places = [int((order == label).nonzero()) for label in labels]
            assert judges.tolist() == expected[places].tolist()
            seen += labels.tolist()
            counts.append(int(judges.sum()))
        if images >= 1000:  # every process has about its share
            assert 0.3 < sum(counts) / (int(expected.sum()) / world) < 2
    assert sorted(seen) == list(range(images))


def test_no_weights_are_fitted_to_those_that_judge():
    """Others in their place change what the judges say, and no bit of what is fitted."""
    case = Case("batch norm and activation")
    others = torch.where(judging(48)[:, None, None, None], pictures(96)[48:], pictures())
    one, other = (
        problem_of(case.context(copy.deepcopy(case.dense), calibration(images, 16)), "parts.3")
        for images in (pictures(), others)
    )
    assert all(map(torch.equal, one.fitted.moments(), other.fitted.moments()))
    assert not any(map(torch.equal, one.held_out.moments(), other.held_out.moments()))
