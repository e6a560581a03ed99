"""What a run has survived, counted over all its parts."""

import os

from ice_ray.cluster.fault_log import FaultLog


def test_counts_outlive_the_process_and_read_well(tmp_path):
    FaultLog.of(tmp_path).note("trial restart", "trial-003")
    FaultLog.of(tmp_path).note("resumption")
    again = FaultLog.of(tmp_path)
    again.note("trial restart", "trial-001")
    again.note("storage retry", times=3)
    assert again.counts() == {"trial restart": 2, "resumption": 1, "storage retry": 3}
    assert str(again) == "2 trial restarts, 1 resumption, 3 storage retries"


def test_nothing_is_said_of_nothing(tmp_path):
    assert FaultLog.of(tmp_path).counts() == {}
    assert str(FaultLog.of(tmp_path)) == ""


def test_a_torn_line_costs_itself_alone(tmp_path):
    fault_log = FaultLog.of(tmp_path)
    fault_log.note("trial restart")
    os.truncate(fault_log.path, fault_log.path.stat().st_size - 20)
    fault_log.note("resumption")
    assert fault_log.counts() == {"resumption": 1}


def test_a_note_that_cannot_be_written_ends_nothing(tmp_path):
    FaultLog.of(tmp_path / "nowhere").note("trial restart")
    assert not (tmp_path / "nowhere").exists()
