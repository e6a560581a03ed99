"""Stage 1 with and without sharing is the same search, whoever dies in the middle of it."""

import dataclasses
import functools
import itertools
import os
import signal

import pytest
from ice_runs import paper
from ray import tune
from ray.tune import TuneError
from searching import facts

from ice_ray.cache.actions import is_kept, key_of
from ice_ray.engine.actions import FineTune
from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.objectives import objective_named
from ice_ray.observe.progress import ProgressCallback
from ice_ray.observe.tensorboard import TensorBoardCallback
from ice_ray.trials.action_cache import action_log
from ice_ray.trials.config import SearchConfig
from ice_ray.trials.proposals import Proposals
from ice_ray.trials.run import STATES, finished_candidates, run_search

pytestmark = pytest.mark.slow
GRID = tuple(
    IceHyperparameters(threshold, 0.3, rate, reduction, midpoint, 50)
    for threshold, rate, reduction, midpoint in itertools.product(
        (0.0, 4.0), (0.02, 0.05), (5e-3, 8e-3), (0.05, 0.15, 0.4)
    )
)


class Search:
    """A search of the sub-grid in a folder of its own."""

    def __init__(self, workload, prepared, folder, tolerance, callbacks=(), **options) -> None:
        settings = dataclasses.replace(workload.settings, config=paper(lr_tolerance=tolerance))
        config = SearchConfig(clock="work", **options)
        workload = dataclasses.replace(workload, settings=settings)
        self.results = run_search(Proposals(GRID), workload, prepared, config, 0.0, folder, list(callbacks))
        self.action_records = action_log(folder / STATES).load()
        self.networks = list((folder / STATES / "networks").glob("*"))

    @property
    def records(self):
        return [facts(result.records) for result in self.results]

    @property
    def winner(self) -> int:
        return objective_named("auto").choose(finished_candidates(self.results, "work", 1e9)).index

    @property
    def asked(self) -> int:
        return sum(record.fine_tuned for result in self.results for record in result.records)

    @property
    def executed(self) -> int:
        return sum(isinstance(action_record.action, FineTune) for action_record in self.action_records)


@pytest.fixture(scope="module")
def searched(workload, prepared, tmp_path_factory):
    """Each search is run once."""

    @functools.cache
    def search(tolerance: float, share_work: bool) -> Search:
        return Search(workload, prepared, tmp_path_factory.mktemp("search"), tolerance, share_work=share_work)

    return search


@pytest.mark.parametrize("tolerance", [0.0, 1e-3])
def test_the_same_records_and_the_same_winner(searched, tolerance):
    alone, shared = searched(tolerance, False), searched(tolerance, True)
    assert len(alone.results) == len(GRID) == 24
    assert not any(result.failure for result in alone.results)
    assert shared.records == alone.records
    assert shared.winner == alone.winner


@pytest.mark.parametrize("tolerance", [0.0, 1e-3])
def test_fewer_fine_tunes_are_carried_out_than_asked_for(searched, tolerance):
    alone, shared = searched(tolerance, False), searched(tolerance, True)
    assert alone.executed == alone.asked == shared.asked
    assert shared.executed < shared.asked

    carried_out = {(action_record.snapshot, action_record.action) for action_record in shared.action_records}
    assert len(carried_out) == len(shared.action_records)


def test_an_ended_search_leaves_no_networks_behind(searched):
    assert not searched(0.0, True).networks


def test_steps_say_whether_they_were_inherited(searched):
    alone, shared = searched(0.0, False), searched(0.0, True)
    assert not any(any(result.inherited) for result in alone.results)
    assert sum(sum(result.inherited) for result in shared.results) > 0
    assert not all(all(result.inherited) for result in shared.results)


def test_a_trial_takes_what_it_would_have_taken_alone(searched):
    """Equal steps have equal seconds: those of the one that was carried out."""
    shared = searched(0.0, True)
    fine_tunes = {
        action_record.outcome.cost.wall_seconds
        for action_record in shared.action_records
        if isinstance(action_record.action, FineTune)
    }
    for result in shared.results:
        for record in result.records:
            assert record.fine_tuning_seconds in fine_tunes | {0.0}


class Killer(tune.Callback):
    """Kills four processes, each after its report of a step, in the middle of the next one of the same trial."""

    def __init__(self) -> None:
        self.killed = 0
        self._reports = 0

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self._reports += 1
        goes_on = not result["done"] and "waiting" not in result  # who waits may be paused: nobody would miss it
        if goes_on and self.killed < 4 and self._reports > 9 * self.killed + 3:
            os.kill(result["pid"], signal.SIGKILL)
            self.killed += 1


def test_whoever_dies_at_work_holds_nobody_up_and_no_network_need_be_kept(
    workload, prepared, tmp_path, searched, capsys
):
    killer, folder = Killer(), tmp_path / "tensorboard"
    kind = IceHyperparameters
    told = [ProgressCallback(len(GRID), 10, kind), TensorBoardCallback(folder, "run", 10, kind, {})]
    nothing = {"store_memory_gb": 0.0, "store_disk_gb": 0.0}
    again = Search(workload, prepared, tmp_path, 0.0, [killer, *told], max_failures=10, **nothing)
    assert killer.killed == 4
    printed = capsys.readouterr().out
    assert printed.count("its process died; it goes on") == 4
    assert printed.count(f"({len(GRID)}/{len(GRID)}) drop") == 1
    names = {path.name.removesuffix("-fine-tuning") for path in folder.glob("trial-*")}
    assert len(names) == len(GRID)
    assert again.executed == searched(0.0, True).executed
    assert again.records == searched(0.0, True).records


class Interrupt(tune.Callback):
    """Brings the driver down in the middle of the search."""

    def __init__(self) -> None:
        self._reports = 0

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self._reports += 1
        if self._reports == 30:
            raise ConnectionError("the driver is gone")


def test_gone_on_with_it_does_nothing_again_that_was_done(workload, prepared, tmp_path, searched):
    with pytest.raises(TuneError, match="the driver is gone"):
        Search(workload, prepared, tmp_path, 0.0, [Interrupt()])
    before = action_log(tmp_path / STATES).load()
    assert any(is_kept(action_record.action) for action_record in before)
    again = Search(workload, prepared, tmp_path, 0.0)
    assert [key_of(d.snapshot, d.action) for d in again.action_records[: len(before)]] == [
        key_of(d.snapshot, d.action) for d in before
    ]
    assert len({key_of(d.snapshot, d.action) for d in again.action_records}) == len(again.action_records)
    assert again.executed == searched(0.0, True).executed
    assert again.records == searched(0.0, True).records
