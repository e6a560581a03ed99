"""Action records come back from their log as they went in, whatever became of the process that wrote it."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ice_ray.cache.actions import ActionRecord, key_of
from ice_ray.cache.storage import ActionLog
from ice_ray.engine.actions import (
    CompareWeights,
    FineTune,
    FineTuned,
    Measure,
    Measured,
    Outcome,
    Prune,
    Repair,
    Score,
)
from ice_ray.engine.cost import Cost
from ice_ray.engine.threshold import Threshold
from ice_ray.repair.repair import Repaired

COST = Cost(0.1, 3e9)
REPAIRS = Repaired({"a": (0.3, 0.1)}, {"b": (0.2, float("inf"))}, (("a", "b"),), False, ("a",), ("b",), True)
RECORDS = [
    ActionRecord("root", Score(1, "l1"), Outcome("root", {"is": torch.tensor([0.1, float("inf"), 1e-38])}, COST)),
    ActionRecord("root", Prune((("a.conv", (0, 2)), ("b", ()))), Outcome("p", None, COST), seconds=0.25),
    ActionRecord("p", Measure(Threshold(87.3, 0.5)), Outcome("p", Measured(71.1, 500, True), COST)),
    ActionRecord("p", FineTune(("step", 1), 0.1, 2, "constant", ("a",)), Outcome("r", FineTuned(2, None), COST)),
    ActionRecord("p", FineTune(("step", 1), 1e30, 1, "constant", ()), None, "diverged"),
    ActionRecord("r", CompareWeights("p", "l1"), Outcome("r", {"a": 0.3}, COST)),
    ActionRecord(
        "r", Repair(2, "reconstruction", (("a.conv", (0, 2)),), 500, 5.0, "residual"), Outcome("c", REPAIRS, COST)
    ),
]


def same(one: ActionRecord, other: ActionRecord) -> bool:
    """As `==`, which tensors do not have."""
    if isinstance(one.action, Score):
        scores, others = (each.outcome.value for each in (one, other))
        return scores.keys() == others.keys() and all(torch.equal(scores[key], others[key]) for key in scores)
    return one == other


def test_what_is_written_is_read_with_the_same_keys(tmp_path):
    log = ActionLog(tmp_path / "new" / "actions.jsonl")
    assert log.load() == []
    for record in RECORDS:
        log.append(record)
    found = ActionLog(tmp_path / "new" / "actions.jsonl").load()
    assert len(found) == len(RECORDS)
    assert all(same(one, other) for one, other in zip(found, RECORDS, strict=True))
    assert [key_of(d.snapshot, d.action) for d in found] == [key_of(d.snapshot, d.action) for d in RECORDS]


@settings(deadline=None)  # it writes to a disk that others use
@given(cut=st.integers(0, 600))
def test_a_log_that_was_cut_short_loses_its_last_line_alone(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("log") / "actions.jsonl"
    log = ActionLog(path)
    for record in RECORDS[1:3]:
        log.append(record)
    text = path.read_text()
    path.write_text(text[: min(cut, len(text))])
    ends = [len(text.splitlines()[0]), len(text) - 1]  # of the two action records, without the end of their lines
    whole = RECORDS[1 : 1 + sum(end <= cut for end in ends)]
    assert log.load() == whole
    log.append(RECORDS[3])
    assert log.load() == [*whole, RECORDS[3]]
