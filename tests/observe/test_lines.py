"""A step in one line, as a person reads it."""

from dataclasses import replace

import pytest

from ice_ray.cache.actions import ActionRecord
from ice_ray.config.run import default_run
from ice_ray.engine.actions import FineTune, Measure
from ice_ray.engine.config import Found
from ice_ray.observe.outcome import what_was_done
from ice_ray.observe.terminal import describe_step
from ice_ray.pipelines.records import FINAL_RETRAINING, StepRecord
from ice_ray.trials.run import SharedWork

SPARED = StepRecord(
    step=2, layers="layer1.1.conv1", filters_removed=4, unpruned_share=0.978, accuracy_before=87.0,
    accuracy_after_pruning=86.5, accuracy=86.5, drop=0.5, images_measured=200, fine_tuned=False,
)  # fmt: skip
TUNED = StepRecord(
    step=2, layers="layer1.1.conv1", filters_removed=4, unpruned_share=0.978, accuracy_before=87.0,
    accuracy_after_pruning=80.0, accuracy=86.5, drop=0.5, images_measured=50, fine_tuned=True, epochs=1.0,
    learning_rate_max=0.0075, fine_tuning_seconds=3.25,
)  # fmt: skip


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (SPARED, "  step 2/9 layer1.1.conv1: 86.50%; 97.8% of the parameters left"),
        (
            TUNED,
            "  step 2/9 layer1.1.conv1: about 80.00% -> 86.50% (fine-tuned at 0.0075, 3.2 s); 97.8% of the parameters"
            " left",
        ),
    ],
)
def test_a_step(record, line):
    assert describe_step(record, 9, 200) == line


def test_a_step_that_is_measured_after_its_fine_tune_alone_and_a_retraining():
    unmeasured = replace(TUNED, accuracy_after_pruning=None, images_measured=200, accepted=False)
    assert "pruned -> 86.50% (fine-tuned at 0.0075, 3.2 s), rolled back;" in describe_step(unmeasured, 9, 200)
    retraining = replace(unmeasured, layers=FINAL_RETRAINING, accepted=True, epochs=4.0)
    assert describe_step(retraining, 9, 200) == "  retraining: 86.50% (4 epochs at 0.0075, 3.2 s)"
    assert "(1 epoch at 0.0075" in describe_step(replace(retraining, epochs=1.0), 9, 200)


def test_what_was_done_claims_a_share_of_every_layer_only_where_that_is_so():
    step = StepRecord(
        step=1, layers="all", filters_removed=3, unpruned_share=0.6, accuracy_before=90.0, accuracy=90.0, drop=0.0
    )
    said = {name: what_was_done(default_run(name).as_dict(), [step], False) for name in ("ice", "imp")}
    assert said["ice"].startswith(
        "Pipeline ice removed 50% of the filters of every prunable layer (criterion residual) in"
    )
    assert said["imp"].startswith("Pipeline imp removed filters of all layers (ratio 0.5) in 1 step.")


def test_what_was_done_tells_of_final_epochs_where_stage_2_has_been_run():
    config = default_run("ice").as_dict() | {"final": {"epochs": 1}}
    told = "1 final epoch of training followed the last step."
    assert what_was_done(config, [SPARED], False).endswith(told)
    assert told not in what_was_done(config, [SPARED], False, replayed=False)
    assert "final epoch" not in what_was_done(default_run("baseline").as_dict(), [TUNED], False)


def test_the_work_of_a_search_names_fine_tunes_and_retrainings_apart():
    def told(*key: str | int) -> ActionRecord:
        return ActionRecord("network", FineTune(key, 0.01, 1, "constant", ()), None, seconds=2.0)

    retraining = replace(TUNED, layers=FINAL_RETRAINING, fine_tuning_seconds=4.0)
    alike = [SPARED, retraining]
    only = SharedWork.of([alike, alike], [told("retraining"), ActionRecord("network", Measure(), None, seconds=1.0)])
    assert str(only) == "2 retrainings asked for, 1 carried out; 8 s of pruning in 3 s of work"
    both = SharedWork.of([[TUNED, retraining]], [told("step", 2), told("retraining")])
    assert str(both).startswith("1 fine-tune asked for, 1 carried out; 1 retraining asked for, 1 carried out; 7 s")
    assert str(SharedWork.of([[SPARED]], [])) == "0 s of pruning in 0 s of work"


def test_what_was_done_says_whose_latency_was_asked_for_and_what_was_measured():
    config = default_run("ice").as_dict() | {"target": "onnx-latency=0.5"}
    found = Found(0.5, (("onnx-latency", 0.4871),), device="cuda:0")
    said = what_was_done(config, [SPARED], False, found=found.words)
    assert "filters down to onnx-latency=0.5 (ONNX Runtime, one thread, batch 64) of the dense model" in said
    assert "For the target: ratio 0.5 leaves 0.487 of the latency (ONNX Runtime, one thread, batch 64)." in said
    assert "latency (PyTorch, cuda:0, batch 64)" in replace(found, shares=(("latency", 0.5),)).words
