"""Real jobs on real images lose processes, nodes, files and storage at random moments, and end as if they had not.

    pytest -n 0 -m long tests/faults --faults 50 --fault-seed 1

inflicts so many faults, drawn with that seed.
"""

import warnings
from random import Random

import pytest
from kinds import may_mount
from suffering import drawn, suffer

pytestmark = [pytest.mark.long, pytest.mark.timeout(0)]  # the suite has deadlines of its own, for what hangs

NO_ROOT = "mounting a disk that can be filled takes root's rights"


def pytest_generate_tests(metafunc):
    count, seed = (metafunc.config.getoption(option, default) for option, default in (("faults", 8), ("fault_seed", 0)))
    jobs = drawn(count, Random(seed))
    names = [" + ".join(kind.name for kind in kinds) for kinds in jobs]
    metafunc.parametrize(("number", "kinds"), list(enumerate(jobs)), ids=names)


def test_it_ends_as_if_nothing_had_been(number, kinds, ground, material, undisturbed, tmp_path, pytestconfig):
    possible = [kind for kind in kinds if not kind.small or may_mount()]
    for kind in set(kinds) - set(possible):
        warnings.warn(f"not inflicted: {kind.name}: {NO_ROOT}", stacklevel=1)
    if not possible:
        pytest.skip(f"{kinds[0].name}: {NO_ROOT}")
    random = Random(f"{pytestconfig.getoption('fault_seed', 0)} {number}")
    suffered = suffer(possible, ground, material, undisturbed, tmp_path, random)
    assert len(suffered) == len(possible)
    for each in suffered:
        assert not each.difference, f"after {each.kind.name} at {each.at} of {each.of}: {each.difference}"
        assert each.counted, f"the job counted fewer than it survived: {each.kind.fault_log}"
