"""Settings made in Python: a value of the wrong kind is named with its field."""

import numpy as np
import pytest

from ice_ray import FineTuneConfig, LayerwisePruneConfig, ReplayConfig, SearchConfig
from ice_ray.errors import FieldError, UserError

NUMBERS = ("concurrent", "subsample", "eval_images", "batch_size", "cpus", "gpus", "max_drop", "work_speed")
NUMBERS += ("trials", "store_memory_gb", "store_disk_gb", "max_failures")
WORDS = ("algorithm", "clock", "objective", "warm_start")


@pytest.mark.parametrize("given", ["3", True, [3]])
@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_is_refused_by_name(name, given):
    with pytest.raises(FieldError, match=rf"^{name} {given!r} must be a (whole )?number$".replace("[3]", r"\[3\]")):
        SearchConfig(**{name: given})


@pytest.mark.parametrize("name", WORDS)
def test_what_is_no_word_is_refused_by_name(name):
    with pytest.raises(UserError, match=f"^{name} 3 must be "):
        SearchConfig(**{name: 3})


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (SearchConfig, {"share_work": 1}, "share_work 1 must be True or False"),
        (SearchConfig, {"share_work": "no"}, "share_work 'no' must be True or False"),
        (SearchConfig, {"algorithm": "gird"}, "algorithm 'gird' must be one of grid, random, tpe, gp"),
        (SearchConfig, {"trials": 2.5}, "trials 2.5 must be a whole number"),
        (SearchConfig, {"eval_images": None}, "eval_images None must be a whole number"),
        (ReplayConfig, {"workers": "2"}, "workers '2' must be a whole number"),
        (FineTuneConfig, {"temperature": "hot"}, "temperature 'hot' must be a number"),
        (LayerwisePruneConfig, {"round_to": "8"}, "round_to '8' must be a whole number"),
    ],
)
def test_the_kinds_are_said(kind, values, said):
    with pytest.raises(UserError) as refusal:
        kind(**values)
    assert str(refusal.value) == said


def test_numbers_of_any_library_are_some():
    assert SearchConfig(trials=np.int64(3), cpus=1, subsample=np.float32(0.5), gpus=None).trials == 3
