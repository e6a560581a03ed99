"""`benchmarks/peers.py`: every tool that is here comes to just below the target; what the rows say is right."""

import importlib
import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
contenders, peers, standings, training = map(importlib.import_module, ("contenders", "peers", "standings", "training"))


def task(images: int = 200) -> object:
    """Random images, and a network of random weights whose batch norms fit them, in training mode."""
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8)
    own = pixels, torch.arange(images) % 10
    dense = peers.CifarResNet(8)
    training.estimate_norms(dense, [training.augmented(pixels[:128])])
    return contenders.Task(dense.train(), own, own, 0.5, seed=0)


TOOLS = {
    "ours": ("ice_ray", partial(contenders.ours, 100, joint_epochs=0.0, reconstruction_epochs=1.0)),
    **{name: ("torch_pruning", prune) for name, prune in contenders.CONTENDERS["Torch-Pruning"].settings.items()},
    "FastNAS": ("modelopt", contenders.CONTENDERS["ModelOpt FastNAS"].settings["widths by 8"]),
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.filterwarnings("ignore:dense")  # no better than chance: the weights are random
def test_a_tool_comes_to_just_below_the_target_and_its_weights_make_the_network_again(tool, tmp_path):
    package, prune = TOOLS[tool]
    pytest.importorskip(package)
    given = task()
    before = {name: value.clone() for name, value in given.dense.state_dict().items()}
    whole = contenders.multiply_adds(given.dense)
    pruned = prune(given)
    assert 0.3 * whole < contenders.multiply_adds(pruned) <= 0.5 * whole
    again = peers.rebuilt(8, peers.saved(pruned, tmp_path / "pruned.safetensors"))
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(again.eval()(images), pruned.eval()(images), atol=1e-5)
    assert contenders.multiply_adds(again) == contenders.multiply_adds(pruned)
    assert peers.ice_ray.inspect(again, (3, 32, 32)).dense["multiply_adds"] == contenders.multiply_adds(again)
    assert all(torch.equal(value, before[name]) for name, value in given.dense.state_dict().items())


def test_training_is_the_same_for_the_same_seed_and_learns_what_a_teacher_says():
    given = task(256)
    images, labels = given.train

    def trained(seed: int, teacher: object = None) -> torch.Tensor:
        torch.manual_seed(1)
        model = peers.CifarResNet(8)
        training.fine_tune(model, images, labels, 1, 0.05, seed, teacher)
        return model.linear.weight.detach()

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))
    assert not torch.equal(trained(0), trained(0, given.dense))


def test_images_of_a_task_are_equally_of_every_class_in_every_batch():
    given = task()
    images, labels = given.images(100)
    assert labels.bincount().tolist() == [10] * 10
    assert all(len(batch.unique()) > 5 for batch in labels.split(20))
    places = [int((given.train[0] == image).flatten(1).all(1).nonzero()) for image in images]
    assert torch.equal(given.train[1][places], labels)


def test_statistics_are_those_of_the_images_as_they_are_trained_on():
    images = task(128).train[0]
    model = peers.CifarResNet(8)
    torch.manual_seed(3)
    training.estimate_norms(model, map(training.augmented, images.split(training.BATCH)))
    torch.manual_seed(3)
    first = model.conv1(training.augmented(images)).detach()
    assert torch.allclose(model.bn1.running_mean, first.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(model.bn1.running_var, first.var((0, 2, 3)), rtol=1e-3)
    assert model.bn1.momentum == 0.1


def row(tool: str, setting: str, seconds: float, accuracy: float, deciding: float, **key: object) -> dict:
    fixed = {"depth": 20, "share": 0.4, "seed": 0, "images": 0, "epochs": 0, "rate": 0.0, "distil": False}
    numbers = {"seconds": seconds, "accuracy": accuracy, "whole": accuracy, "deciding": deciding, "dense": 91.0}
    about = {} if key.get("images") else {"version": "1", "multiply_adds": 0.4}
    return {"key": {"tool": tool, "setting": setting, **fixed, **key}, "machine": "one", **numbers, **about}


ROWS = [
    row("ice_ray", "a", 10, 80, 80),
    row("peer", "b", 1, 20, 10),
    row("peer", "b", 1, 10, 30, seed=1),
    row("peer", "c", 1, 90, 15),
    row("peer", "b", 9, 60, 50, images=5000, epochs=1, rate=0.01),
    row("peer", "b", 9, 99, 40, images=5000, epochs=1, rate=0.05),
    row("peer", "b", 999, 90, 90, images=5000, epochs=4, rate=0.01),
    row("peer", "b", 999, 90, 90, share=0.7),
]


def test_the_deciding_half_chooses_among_what_has_most_seeds_and_pruning_is_counted_once():
    found = standings.points(standings.ways(ROWS, 20, 0.4))
    assert found["peer"][0, 0, False]["setting"] == "b"
    assert found["peer"][0, 0, False]["accuracy"] == [20, 10]
    one = found["peer"][5000, 1, False]
    assert (one["rate"], one["accuracy"], one["seconds"]) == (0.01, [60], [10])


def test_what_is_said_of_equal_accuracy_comes_from_the_rows():
    found = standings.ways(ROWS, 20, 0.4)
    curve = standings.best_by(found["peer"])
    assert curve == [(1, 15), (10, 60), (1000, 90)]
    assert standings.seconds_to(curve, 75) == pytest.approx(100)
    assert standings.seconds_to(curve, 10) == 1
    assert standings.seconds_to(curve, 91) is None
    text = "\n".join(standings.said(found))
    assert "80.00% after 10 s: peer takes 215 s, 21.54 times as long" in text
    assert "peer has 15.00% after 1.0 s; ours takes 10 s" in text
    assert "peer has 90.00% after 1,000 s; ours never does" in text
    assert standings.said({"peer": found["peer"]}) == ["No row of ours is here yet."]


def test_a_published_run_of_such_a_machine_counts_as_finished(tmp_path, capsys):
    common = importlib.import_module("common")
    published = tmp_path / "published.jsonl"
    rows = [
        {"key": {"a": 1}, "machine": common.machine(), "value": 2},
        {"key": {"a": 2}, "machine": "a faster one", "value": 2},
    ]
    published.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ledger = common.Ledger(tmp_path / "work", "own", published)
    assert "a faster one, and does not count here" in capsys.readouterr().out
    assert ledger.once({"a": 1}, lambda: {"value": 3})["value"] == 2
    assert ledger.once({"a": 2}, lambda: {"value": 3})["value"] == 3  # seconds of unlike machines do not compare
    assert [each["value"] for each in common.Ledger(tmp_path / "work", "own", published).rows] == [3, 2]
