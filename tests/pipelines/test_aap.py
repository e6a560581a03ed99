"""AAP: its controller against a trace worked by hand, its threshold, its targets."""

import dataclasses

import pytest
import torch

from ice_ray.models.units import PrunableUnit
from ice_ray.pipelines.aap import AapConfig, AapHyperparameters, AapOptions, AapPipeline, _unattended
from ice_ray.pipelines.aap_controller import Controller, RoundResult
from ice_ray.pipelines.records import PipelineState

DENSE = RoundResult("dense", 90.0)
A, B, C = (RoundResult(name, 89.0) for name in "ABC")


def at(controller: Controller) -> tuple[float, float, str, int]:
    return controller.threshold, controller.step, controller.start.snapshot, controller.failures


def test_a_trace_of_accepted_and_rejected_rounds_with_every_kind_of_roll_back():
    """lambda_0 = 0.4. T, lambda, where the next round starts, k."""
    controller = Controller(0.0, 0.4, DENSE)
    controller = controller.accept(A)  # A stands: T = 0, lambda = .4
    assert at(controller) == (0.4, 0.4, "A", 0)
    controller = controller.accept(B)  # B stands: T = .4, lambda = .4
    assert at(controller) == (0.8, 0.4, "B", 0)
    controller = controller.reject()  # first failure: T_B + lambda_B / 2
    assert at(controller) == pytest.approx((0.6, 0.2, "B", 1))
    controller = controller.reject()  # second: T_B + lambda_B / 4
    assert at(controller) == pytest.approx((0.5, 0.1, "B", 2))
    controller = controller.reject()  # third: T_B, half of the last lambda, and B is taken off
    assert at(controller) == pytest.approx((0.4, 0.05, "B", 0))
    assert [entry.result.snapshot for entry in controller.stack] == ["A"]
    controller = controller.accept(C)  # C stands: T = .4, lambda = .05
    assert at(controller) == pytest.approx((0.45, 0.05, "C", 0))
    for expected in ((0.425, 0.025, "C", 1), (0.4125, 0.0125, "C", 2), (0.4, 0.00625, "C", 0)):
        controller = controller.reject()
        assert at(controller) == pytest.approx(expected)
    for expected in ((0.2, 0.2, "A", 1), (0.1, 0.1, "A", 2), (0.0, 0.05, "A", 0)):  # now from A, by A's own lambda
        controller = controller.reject()
        assert at(controller) == pytest.approx(expected)
    assert not controller.stopped
    assert Controller.from_json(controller.as_json()) == controller
    assert controller.stack == ()
    assert controller.reject().stopped  # nothing is left to go back to


def test_the_first_round_rejected_is_the_end():
    assert Controller(0.0, 0.4, DENSE).reject().stopped


def test_filters_up_to_the_threshold_go_but_never_all():
    unit = PrunableUnit("a", 4, ("b",))
    scores = torch.tensor([0.3, 0.1, 0.2, 0.4])
    assert _unattended(unit, scores, 0.05) == ()
    assert _unattended(unit, scores, 0.2000001) == (1, 2)
    assert _unattended(unit, scores, 1.0) == (0, 1, 2)
    # Of two groups filters 0 and 2 go together, with attention .35, and 1 and 3 with .15.
    grouped, paired = PrunableUnit("a", 4, ("b",), groups=2), torch.tensor([0.3, 0.1, 0.4, 0.2])
    assert _unattended(grouped, paired, 0.2) == (1, 3) == _unattended(grouped, paired, 1.0)


def pipeline(target: str, **changes: float) -> AapPipeline:
    point = dataclasses.replace(AapHyperparameters(2.0, 5.0, 0.02), **changes)
    config = AapConfig(ratio=0.5, aap=AapOptions(target, rounds=5, images=64))
    return AapPipeline(config=config, hyperparameters=point)


def test_targets_are_of_accuracy_of_size_or_of_both():
    cases = {(4.9, 0.6): "accuracy", (5.1, 0.4): "parameters flops", (5.0, 0.5): "accuracy parameters flops both"}
    for (drop, taken), held in cases.items():
        for target in ("accuracy", "parameters", "flops", "accuracy-parameters"):
            name = "both" if target == "accuracy-parameters" else target
            assert pipeline(target)._meets_targets(drop, taken) == (name in held.split())


@pytest.fixture
def preparation(executor):
    return pipeline("accuracy").prepare(executor, False)


def rounds(executor, own: AapPipeline, preparation) -> PipelineState:
    state = own.begin(executor)
    while not own.is_done(executor, state):
        state = own.advance(executor, state, preparation)
        executor.commit(state.snapshot)
    return state


def test_thresholds_are_by_the_share_of_what_the_target_counts(executor, preparation):
    """The first stage of a ResNet has few weights and many multiply-adds: it loses more under `flops`."""
    network = executor.network
    model = network.build(torch.device("cpu"))
    weights, work = (network.layer_shares(model, counting) for counting in ("weights", "multiply-adds"))
    assert weights["layer1.0.conv1"] < weights["layer3.0.conv1"]
    assert work["layer1.0.conv1"] > 2 * weights["layer1.0.conv1"]
    assert sum(weights.values()) < 1


def test_where_nothing_is_ever_accepted_the_dense_network_stays(executor, preparation):
    state = rounds(executor, pipeline("accuracy", accuracy_budget=0.0, learning_rate=0.4), preparation)
    assert [record.accepted for record in state.records] == [False, True]
    assert state.records[-1].layers == "no round stands"
    assert state.snapshot == executor.root
    assert state.records[-1].unpruned_share == 1
    assert state.records[-1].drop == 0
    assert state.records[-1].cost.wall_seconds == 0


def test_the_round_that_took_most_stands_and_no_other_network_is_kept(executor, preparation):
    state = rounds(executor, pipeline("parameters"), preparation)
    accepted = [record for record in state.records[:5] if record.accepted]
    assert not all(record.accepted for record in state.records[:5])
    assert state.records[-1].unpruned_share == min(record.unpruned_share for record in accepted) >= 0.5
    assert state.kept == ()
