"""What takes long says that it goes on."""

import time

from ice_ray.workflow.waiting import told_of


def test_a_line_after_every_interval_and_none_afterwards(capsys):
    with told_of("looking", seconds=0.05):
        time.sleep(0.3)
    said = capsys.readouterr().out.splitlines()
    time.sleep(0.15)
    assert said[:2] == ["looking: 0.05 s so far", "looking: 0.1 s so far"]
    assert not capsys.readouterr().out


def test_what_is_quick_says_nothing(capsys):
    with told_of("looking"):
        pass
    assert not capsys.readouterr().out
