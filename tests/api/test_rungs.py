"""A ladder walked by `ice_ray.prune`: its rungs, what is saved of them, and what they are told by."""

import json

import pytest
import torch

import ice_ray
from ice_ray import FinalConfig, IceHyperparameters, UserError, load_pruned, prune
from ice_ray.data.batches import Shard
from ice_ray.hyperparameters import NEVER
from ice_ray.models.registry import ModelSpec
from ice_ray.pipelines.baseline import BaselineHyperparameters
from ice_ray.pipelines.one_shot import OneShotHyperparameters
from ice_ray.training.evaluate import count_correct

LADDER = "macs=0.8,0.6,0.45"
USUAL = {"device": "cpu", "progress": False, "batch_size": 64, "calibration_images": 200, "precision": "fp32"}


def accuracy(model, data):
    correct, seen = count_correct(model.eval(), data.validation, data.preprocessing, "fp32", Shard())
    return 100 * int(correct) / seen


def builder(**_):
    return ModelSpec("cifar-resnet8", 10).build()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rungs")


@pytest.fixture(scope="module")
def result(trained, data, folder):
    return prune(trained, data, target=LADDER, rungs_to=folder, **USUAL)


def same_bits(one, other):
    states = one.model.state_dict(), other.model.state_dict()
    return one.widths == other.widths and all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_every_rung_is_within_its_budget_and_keeps_no_filter_that_has_gone(result):
    assert [rung.name for rung in result.rungs] == ["macs=0.8", "macs=0.6", "macs=0.45"]
    assert result.rungs[-1] is result
    above = None
    for rung, share in zip(result.rungs, (0.8, 0.6, 0.45), strict=True):
        assert rung.macs <= share * rung.original_macs
        kept = rung.description["kept"]
        if above is not None:
            assert all(set(kept[layer]) <= set(filters) for layer, filters in above.items())
        above = kept
    assert len({rung.original_accuracy for rung in result.rungs}) == 1


def test_what_is_saved_of_a_rung_is_as_good_as_it_is_told_to_be(result, folder, data):
    assert sorted(each.name for each in folder.iterdir()) == sorted(rung.name for rung in result.rungs)
    for rung in result.rungs:
        again = load_pruned(folder / rung.name, builder=builder)
        assert accuracy(again, data) == rung.accuracy == accuracy(rung.model, data)
        assert json.loads((folder / rung.name / "model.json").read_text())["config"]["target"] == rung.name


def test_the_same_seed_gives_the_same_bits(result, trained, data):
    again = prune(trained, data, target=LADDER, **USUAL)
    for one, other in zip(result.rungs, again.rungs, strict=True):
        assert same_bits(one, other)


def test_a_first_rung_is_a_run_alone_with_as_many_epochs(trained, data):
    ladder = prune(trained, data, target="macs=0.7,0.5", rung_epochs=2, **USUAL)
    alone = prune(trained, data, target="macs=0.7", reconstruction_epochs=0, joint_epochs=2 / 0.7, **USUAL)
    assert same_bits(ladder.rungs[0], alone)
    assert alone.rungs == (alone,)
    assert "latency_64_ms" not in alone.description["metrics"]["pruned"]


def test_an_interruption_leaves_the_rungs_that_are_done(trained, data, tmp_path):
    steps = []

    def interrupt(record):
        steps.append(record.step)
        if steps.count(1) == 2:  # the first step of the second rung
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(trained, data, target=LADDER, rungs_to=tmp_path, callback=interrupt, **USUAL)
    assert [each.name for each in tmp_path.iterdir()] == ["macs=0.8"]
    load_pruned(tmp_path / "macs=0.8", builder=builder)


@pytest.mark.parametrize(
    ("pipeline", "hyperparameters", "options"),
    [
        ("ice", IceHyperparameters(1.0, 0.3, 0.02, 5e-3, 0.15, 50, final_epochs=1, final_learning_rate=1e-3), {}),
        ("ice", IceHyperparameters(NEVER, 0, 0, 0, 0.15, 50), {"final": FinalConfig(epochs=1, rate=1e-3)}),
        ("ice", None, {"allocate": "uniform"}),
        ("baseline", BaselineHyperparameters(1e-3), {"repair": "least-squares"}),
        ("one-shot", OneShotHyperparameters(final_epochs=1, final_learning_rate=1e-3), {}),
    ],
)
def test_rungs_that_are_trained_are_told_by_what_they_come_to(trained, data, pipeline, hyperparameters, options):
    own = USUAL | {"pipeline": pipeline, "hyperparameters": hyperparameters} | options
    ladder = prune(trained, data, target="macs=0.8,0.5", **own)
    assert ladder.rungs[0].macs <= 0.8 * ladder.original_macs
    assert ladder.macs <= 0.5 * ladder.original_macs
    for rung in ladder.rungs:
        assert rung.accuracy == accuracy(rung.model, data)
    assert ladder.records[0].accuracy_before == ladder.rungs[0].accuracy


def test_a_ladder_is_shown_as_a_table_and_a_figure(result):
    text = str(result)
    for rung in result.rungs:
        assert f"{rung.accuracy:.2f}%" in text
        assert rung.name in text
    assert f"{result.original_accuracy:.2f}%" in text
    assert result._repr_html_().count("<table>") == 2
    panels = result.plot().figure.axes
    assert [axes.get_xlabel().split(" left")[0] for axes in panels] == [
        "multiply-adds",
        "latency, PyTorch eager, batch 64",
    ]
    for axes in panels:
        shares, accuracies = axes.lines[0].get_data()
        assert list(accuracies) == [result.original_accuracy, *(rung.accuracy for rung in result.rungs)]
        assert shares[0] == 100
    assert str(result.rungs[0]).count("dense") == 1  # a rung by itself is as any result


def test_what_cannot_walk_a_ladder_says_so(trained, data, tmp_path):
    with pytest.raises(UserError, match=r"^rungs_to saves the rungs of a target"):
        prune(trained, data, ratio=0.5, rungs_to=tmp_path, **USUAL)
    with pytest.raises(UserError, match=r"^target finds a share for every layer alike; pipeline aap takes ratio$"):
        prune(trained, data, target=LADDER, pipeline="aap", device="cpu")
    with pytest.raises(UserError, match=r"^target 'macs=0.8,0.6,0.45' is a ladder, and inspect takes one share"):
        ice_ray.inspect(trained, (3, 8, 8), target=LADDER)
    with pytest.raises(UserError, match=r"rung_epochs.* must be at least 0"):
        prune(trained, data, target=LADDER, rung_epochs=-1, device="cpu")
