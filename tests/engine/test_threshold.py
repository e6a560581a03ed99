"""The threshold's question: answered early, it is answered as all the images answer it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ice_ray.engine.actions import Measure
from ice_ray.engine.threshold import Threshold

ANSWERS = st.lists(st.booleans(), min_size=1, max_size=80)


def first_verdict(threshold: Threshold, answers: list[bool], every: int) -> tuple[bool, int, int]:
    """What is said, and of which count after how many images."""
    total = len(answers)
    looks = -(-total // every)
    for seen in [*range(every, total, every), total]:
        verdict = threshold.verdict(sum(answers[:seen]), seen, total, looks)
        if verdict is not None:
            return verdict, sum(answers[:seen]), seen
    raise AssertionError("all images leave it open")


@given(ANSWERS, st.integers(1, 20), st.floats(0, 100), st.floats(-5, 100))
def test_an_early_exact_verdict_is_that_of_all_images_and_of_the_part_seen(answers, every, original, drop):
    threshold = Threshold(original, drop)
    verdict, correct, seen = first_verdict(threshold, answers, every)
    assert verdict == threshold.reached(100.0 * sum(answers) / len(answers))
    assert verdict == threshold.reached(100.0 * correct / seen)
    if not verdict:
        assert seen == len(answers)


@given(ANSWERS, st.integers(1, 20), st.floats(0, 100), st.floats(-5, 100))
def test_an_exact_verdict_comes_with_the_first_image_that_makes_it_certain(answers, every, original, drop):
    """Oracle: the best that the remaining images could do."""
    threshold = Threshold(original, drop)
    verdict, _, seen = first_verdict(threshold, answers, every)
    earlier = seen - every
    if verdict and earlier > 0:
        best = sum(answers[:earlier]) + len(answers) - earlier
        assert not threshold.reached(100.0 * best / len(answers))


@pytest.mark.parametrize("accuracy", [0.70, 0.855, 0.86, 0.863, 0.864, 0.90])
def test_verdicts_within_an_error_are_wrong_no_more_often_and_look_at_fewer_images(accuracy):
    """1,000 random orders of 1,000 answers against a threshold at 86.3%, that is 863 right ones."""
    random = np.random.default_rng(0)
    threshold = Threshold(86.8, 0.5, error=0.05)
    answers = [True] * round(1000 * accuracy) + [False] * (1000 - round(1000 * accuracy))
    found = [first_verdict(threshold, random.permutation(answers).tolist(), 125) for _ in range(1000)]
    truth = threshold.reached(100 * accuracy)
    assert np.mean([verdict != truth for verdict, _, _ in found]) <= 0.05
    if abs(accuracy - 0.863) > 0.03:
        assert np.mean([seen for _, _, seen in found]) < 500


@given(ANSWERS, st.integers(1, 20), st.floats(0, 100), st.floats(-5, 100), st.floats(0.001, 0.49))
def test_what_was_seen_is_on_the_verdict_s_side(answers, every, original, drop, error):
    threshold = Threshold(original, drop, error)
    verdict, correct, seen = first_verdict(threshold, answers, every)
    assert verdict == threshold.reached(100.0 * correct / seen)


@given(ANSWERS, st.integers(1, 20), st.floats(0, 99), st.floats(0.001, 0.49))
def test_what_no_network_can_lose_is_not_looked_for(answers, every, original, error):
    verdict, _, seen = first_verdict(Threshold(original, 100.0, error), answers, every)
    assert (verdict, seen) == (False, min(every, len(answers)))


def test_a_network_that_lost_much_is_not_measured_to_the_end(executor, monkeypatch):
    monkeypatch.setattr("ice_ray.training.evaluate._BATCH_PIXELS", 32 * 8 * 8)
    pruned = executor.run(executor.root, _half_of_every_layer(executor)).snapshot
    whole = executor.run(pruned, Measure()).value
    part = executor.run(pruned, Measure(Threshold(100.0, 5.0)))
    assert whole.accuracy < 90 and part.value.reached
    assert part.value.images < whole.images == executor.validation_images
    assert part.cost.flops == pytest.approx(executor.run(pruned, Measure()).cost.flops * part.value.images / 200)
    spared = executor.run(pruned, Measure(Threshold(100.0, 99.0))).value
    assert (spared.accuracy, spared.images, spared.reached) == (whole.accuracy, whole.images, False)


def _half_of_every_layer(executor):
    from ice_ray.engine.actions import Prune

    return Prune(tuple((unit.layer, tuple(range(0, unit.filters, 2))) for unit in executor.network.units))
