"""The fine-tune: what it changes, what it must not, and that it repeats bit for bit."""

import torch
import torch.nn.functional as F

from ice_ray.data.batches import Shard, training_batches
from ice_ray.pruning.freezing import hold_fixed
from ice_ray.training.distil import distillation_loss
from ice_ray.training.fine_tune import Recipe, fine_tune

RECIPE = Recipe(batch_size=64)


def run(network, data, **changes):
    model = network.build(torch.device("cpu"))
    for layer in changes.pop("frozen", ()):
        hold_fixed(model, (layer,), network.norms)
    fine_tune(model, data.train, data.preprocessing, RECIPE, lambda _: 0.01, 1, (0, "test"), **changes)
    return model.state_dict()


def test_same_key_same_bits_whatever_was_drawn_before(network, data):
    first = run(network, data)
    torch.randn(1000)
    second = run(network, data)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_frozen_layers_keep_weight_and_affine_while_statistics_move(network, data):
    before, after = network.build(torch.device("cpu")).state_dict(), run(network, data, frozen=["layer2.0.conv1"])
    for key in ("layer2.0.conv1.weight", "layer2.0.bn1.weight", "layer2.0.bn1.bias"):
        assert torch.equal(before[key], after[key])
    assert not torch.equal(before["layer2.0.bn1.running_mean"], after["layer2.0.bn1.running_mean"])
    assert not torch.equal(before["conv1.weight"], after["conv1.weight"])


def test_the_teacher_changes_the_student_but_not_itself(network, data):
    teacher = network.build(torch.device("cpu"))
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    taught = run(network, data, teacher=teacher)
    alone = run(network, data)
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not torch.equal(taught["conv1.weight"], alone["conv1.weight"])


def test_one_step_equals_sgd_by_hand(network, data):
    """Oracle: torch's own cross entropy and the update rule of SGD with momentum from rest and weight decay."""
    recipe = Recipe(batch_size=len(data.train), distil=False)
    model, by_hand = network.build(torch.device("cpu")), network.build(torch.device("cpu"))
    fine_tune(model, data.train, data.preprocessing, recipe, lambda _: 0.1, 1, (0, "one"))
    by_hand.train()
    images, labels, _ = next(training_batches(data.train, data.preprocessing, len(data.train), (0, "one", 0), Shard()))
    F.cross_entropy(by_hand(images), labels).backward()
    for parameter, updated in zip(by_hand.parameters(), model.parameters(), strict=True):
        expected = parameter - 0.1 * (parameter.grad + 1e-4 * parameter)
        torch.testing.assert_close(updated, expected, rtol=1e-4, atol=1e-6)


def test_distillation_loss_is_the_divergence_of_softened_classes():
    student, teacher = torch.randn(5, 7), torch.randn(5, 7)
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    expected = (p * (p.log() - q.log())).sum() / 5
    torch.testing.assert_close(distillation_loss(student, teacher, 2.0), expected)
    assert float(distillation_loss(teacher, teacher, 2.0)) < 1e-6
