"""The fine-tune: what it changes, what it must not, and that it repeats bit for bit."""

import pytest
import torch
import torch.nn.functional as F

from ice_ray.data.batches import Shard, training_batches
from ice_ray.errors import UserError
from ice_ray.pruning.freezing import hold_fixed
from ice_ray.training.config import FineTuneConfig
from ice_ray.training.fine_tune import Recipe, StepCheck, distillation_loss, fine_tune
from ice_ray.training.precision import resolve

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
    recipe = Recipe(batch_size=len(data.train), options=FineTuneConfig(distil=False))
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


def test_label_smoothing_and_the_weight_of_distillation_are_in_the_first_step(network, data):
    """Oracle: torch's smoothed cross entropy plus the weighted divergence, one SGD step by hand."""
    recipe = Recipe(len(data.train), FineTuneConfig(distil_weight=0.5, label_smoothing=0.1, temperature=3.0))
    model, by_hand, teacher = (network.build(torch.device("cpu")) for _ in range(3))
    with torch.no_grad():
        teacher.get_parameter("linear.weight").mul_(2)
    fine_tune(model, data.train, data.preprocessing, recipe, lambda _: 0.1, 1, (0, "one"), teacher)
    by_hand.train()
    images, labels, _ = next(training_batches(data.train, data.preprocessing, len(data.train), (0, "one", 0), Shard()))
    logits = by_hand(images)
    loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
    (loss + 0.5 * distillation_loss(logits, teacher(images).detach(), 3.0)).backward()
    expected = by_hand.linear.weight - 0.1 * (by_hand.linear.weight.grad + 1e-4 * by_hand.linear.weight)
    torch.testing.assert_close(model.linear.weight, expected, rtol=1e-4, atol=1e-6)


def test_the_rate_follows_progress_over_all_epochs(network, data):
    seen = []

    def rate(progress: float) -> float:
        seen.append(progress)
        return 0.0

    fine_tune(network.build(torch.device("cpu")), data.train, data.preprocessing, RECIPE, rate, 2, (0, "test"))
    batches = -(-len(data.train) // RECIPE.batch_size)
    asked = seen[1:]  # the first is the optimizer's making
    assert len(asked) == 2 * batches
    half = RECIPE.batch_size / 2 / len(data.train) / 2
    assert asked[0] == pytest.approx(half)
    assert asked[batches] == pytest.approx(0.5 + half)
    assert asked == sorted(asked)
    assert asked[-1] < 1


def test_training_ends_after_the_epoch_that_is_enough(network, data):
    model = network.build(torch.device("cpu"))
    asked = []

    def enough() -> bool:
        asked.append(not model.training)
        return len(asked) == 2

    seen, _ = fine_tune(model, data.train, data.preprocessing, RECIPE, lambda _: 0.0, 5, (0, "test"), enough=enough)
    assert seen == 2 * len(data.train)
    assert asked == [True, True]


def test_training_ends_inside_an_epoch_where_that_is_enough(network, data):
    model, asked = network.build(torch.device("cpu")), []

    def enough() -> bool:
        asked.append(None)
        return len(asked) == 5

    step_check = StepCheck(3, enough)
    seen, _ = fine_tune(
        model, data.train, data.preprocessing, RECIPE, lambda _: 0.0, 3, (0, "test"), step_check=step_check
    )
    assert len(asked) == 5
    assert seen == len(data.train) + 5 * RECIPE.batch_size  # 15 steps, ten of which are an epoch
    assert not model.training


@pytest.mark.parametrize(("count", "world"), [(3, 2), (1, 1)])
def test_an_epoch_without_a_step_is_no_training(network, data, count, world):
    model, few = network.build(torch.device("cpu")), data.train.take(torch.arange(count))
    with pytest.raises(UserError, match=rf"{count} training image.*{world} worker.*no step"):
        fine_tune(model, few, data.preprocessing, RECIPE, lambda _: 0.1, 1, (0, "few"), shard=Shard(0, world))


def test_half_precision_scales_the_loss_and_arrives_where_full_precision_does(network, data):
    """fp16 is offered on GPUs only; its arithmetic is the same code, run here on the CPU."""
    weights = []
    for precision in ("fp32", "fp16"):
        model = network.build(torch.device("cpu"))
        recipe = Recipe(batch_size=64, options=FineTuneConfig(distil=False), precision=precision)
        fine_tune(model, data.train, data.preprocessing, recipe, lambda _: 0.01, 1, (0, "test"))
        weights.append(model.get_parameter("linear.weight").detach())
    assert weights[1].dtype == torch.float32
    assert not torch.equal(*weights)
    torch.testing.assert_close(*weights, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", 0.0), ("distil_weight", -1.0), ("label_smoothing", 1.0), ("batch_size", 1)]
)
def test_a_recipe_out_of_range_is_refused(field, value):
    with pytest.raises(UserError, match=f"{field} {value} must be"):
        (Recipe if field == "batch_size" else FineTuneConfig)(**{field: value})


def test_precision_is_resolved_by_the_device():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert resolve("auto", cpu) in ("fp32", "bf16")
    assert resolve("fp16", cuda) == "fp16"
    with pytest.raises(UserError, match="fp16 is for GPUs"):
        resolve("fp16", cpu)
