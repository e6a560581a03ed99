"""Stage 1 on real Ray: trials equal the operator in process, one trial's fault is its own, actors are reused."""

import dataclasses
import math
import shutil

import pytest
from ray import tune
from ray.tune import TuneError
from searching import OPTIONS, SHAPE, facts

from ice_ray import prune
from ice_ray.errors import UserError
from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.ingest.datasets import open_dataset
from ice_ray.ingest.load import load
from ice_ray.ingest.roles import Rows, assign_roles, subsample
from ice_ray.objectives import objective_named
from ice_ray.trials.config import SearchConfig
from ice_ray.trials.proposals import Proposals
from ice_ray.trials.run import finished_candidates, point_log, run_search
from ice_ray.trials.sampler import Sampling
from ice_ray.trials.space import SearchBounds

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]
POINTS = (
    IceHyperparameters(0.0, 0.3, 0.02, 5e-3, 0.15, 50),
    IceHyperparameters(0.0, 0.3, 1e30, 1e29, 0.15, 50),  # diverges
    IceHyperparameters(2.0, 0.9, 0.02, 5e-3, 0.15, 50),
    IceHyperparameters(0.0, 0.3, 0.02, 5e-3, 0.15, 50),  # the first one again, on an actor that has pruned before
    IceHyperparameters(55.0, 0.3, 1e30, 1e29, 0.15, 50),  # diverges too, but not at its first step
)
BOUNDS = SearchBounds(
    "wild",
    {name: (value, value) for name, value in POINTS[0].as_dict().items()}
    | {"accuracy_drop_threshold": (0, 2), "base_learning_rate": (0.01, 1e4)},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def results(workload, prepared, folder):
    return run_search(Proposals(POINTS), workload, prepared, SearchConfig(clock="work"), 0.0, folder, [])


def test_results_come_in_the_order_of_the_points_with_all_their_steps(results):
    assert [result.hyperparameters for result in results] == list(POINTS)
    assert [len(result.records) for result in results] == [3, 0, 3, 3, 1]


def test_a_trial_that_diverges_fails_alone_and_says_why(results):
    assert [bool(result.failure) for result in results] == [False, True, False, False, True]
    assert "NaN or infinite at learning rate" in results[1].failure
    assert "NaN or infinite at learning rate" in results[4].failure


def test_trials_with_the_same_history_are_the_same_run_on_a_fresh_actor_or_a_used_one(results):
    assert facts(results[0].records) == facts(results[3].records)


def test_a_trial_equals_the_operator_in_process(results, workload, trained):
    """One thread there, one thread here: bits depend on the number of threads."""
    import torch

    torch.set_num_threads(1)
    result = prune(
        trained, workload.data(), ratio=0.5, hyperparameters=POINTS[2], precision="fp32", device="cpu", **OPTIONS
    )
    assert facts(result.records) == facts(results[2].records)


def test_a_trial_of_streamed_images_equals_the_one_of_images_in_memory(results, workload, prepared, tmp_path):
    """In Tune's placement groups, which leave no CPU for decoding."""
    dataset = open_dataset("digits")
    roles = assign_roles(dataset, "holdout", 0)
    train = load(dataset, subsample(dataset, roles.train, 400, 0, "t"), "stop", SHAPE, "stream")
    validation = load(dataset, roles.validation, "stop", SHAPE, "stream")
    streamed = dataclasses.replace(workload, train=train, validation=validation)
    again = run_search(Proposals(POINTS[2:3]), streamed, prepared, SearchConfig(clock="work"), 0.0, tmp_path, [])
    assert facts(again[0].records) == facts(results[2].records)


def test_the_work_clock_is_the_operations_over_the_speed(results):
    expected = sum(record.flops for record in results[0].records) / 1e9
    assert results[0].pruning_seconds("work", 1e9) == pytest.approx(expected)
    candidates = finished_candidates(results, "work", 1e9)
    assert [candidate.index for candidate in candidates] == [0, 2, 3]
    assert candidates[0].pruning_seconds == pytest.approx(expected)


def test_a_resumed_grid_runs_what_is_open_and_nothing_else(results, workload, prepared, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "search" / "trial-000.json").unlink()
    ended = Ended()
    again = run_search(Proposals(POINTS), workload, prepared, SearchConfig(clock="work"), 0.0, copy, [ended])
    assert ended.indices == [0]
    assert [facts(result.records) for result in again] == [facts(result.records) for result in results]


def test_what_a_search_left_that_was_killed_at_its_end_is_cleared(results, workload, prepared, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    networks = copy / "search" / "networks"
    networks.mkdir(exist_ok=True)
    (networks / "left.safetensors").write_bytes(b"of a trial")
    again = run_search(Proposals(POINTS), workload, prepared, SearchConfig(clock="work"), 0.0, copy, [])
    assert [facts(result.records) for result in again] == [facts(result.records) for result in results]
    assert not networks.exists()


class Ended(tune.Callback):
    """Remembers which trials ended; brings the Tune run down at the first report of trial `interrupt`."""

    def __init__(self, interrupt: int = -1) -> None:
        self.indices: list[int] = []
        self._interrupt = interrupt

    def on_trial_result(self, iteration, trials, trial, result, **info):
        if trial.config["point"]["index"] == self._interrupt and result.get("step") == 1:
            raise ConnectionError("the driver is gone")

    def on_trial_complete(self, iteration, trials, trial, **info):
        self.indices.append(trial.config["point"]["index"])


class TestSamplers:
    """Five trials, the first of which diverges, one at a time; `tpe` is interrupted inside its third."""

    def search(self, algorithm, objective, workload, prepared, folder, callback):
        diverges = IceHyperparameters(0.0, 0.3, 1e4, 5e-3, 0.15, 50)
        proposals = Proposals((diverges,), Sampling(algorithm, BOUNDS, 5, seed=2))
        config = SearchConfig(algorithm, 5, concurrent=1, objective=objective, clock="work")
        return run_search(proposals, workload, prepared, config, 0.0, folder, [callback])

    def check(self, algorithm, objective, results):
        """The oracle: the sampler, asked anew with what the trials before each have shown."""
        told = objective_named(objective)
        found = {candidate.index: candidate for candidate in finished_candidates(results, "work", 1e9)}
        for index in range(1, 5):
            history = []
            for result in results[:index]:
                outcomes = told.values([found[result.index]]) if result.index in found else [None]
                history.append((result.hyperparameters, *outcomes))
            expected = Sampling(algorithm, BOUNDS, 5, seed=2).suggest(history, told.dimensions)
            assert results[index].hyperparameters == expected
        assert "NaN or infinite" in results[0].failure
        assert len(found) >= 2  # so that the model, not chance, was asked for the last one

    def test_tpe_interrupted_goes_on_as_if_it_had_not_been(self, workload, prepared, tmp_path):
        first, second = Ended(interrupt=2), Ended()
        with pytest.raises(TuneError, match="the driver is gone"):
            self.search("tpe", "auto", workload, prepared, tmp_path, first)
        begun = point_log(tmp_path, "ice").load()
        assert (first.indices, len(begun)) == ([0, 1], 3)
        results = self.search("tpe", "auto", workload, prepared, tmp_path, second)
        assert second.indices == [2, 3, 4]
        assert tuple(result.hyperparameters for result in results[:3]) == begun
        self.check("tpe", "auto", results)

    def test_gp_over_two_objectives(self, workload, prepared, tmp_path):
        self.check("gp", "pareto", self.search("gp", "pareto", workload, prepared, tmp_path, Ended()))


def test_the_original_accuracy_and_the_probe_are_those_of_the_dense_model(prepared, network):
    assert prepared.preparation.original_accuracy > 90
    assert set(prepared.preparation.ranking) == set(network.freezable)
    assert math.isclose(prepared.flops_per_second, 1e9)


def test_rows_keep_their_order_through_ray_data(workload):
    dataset = open_dataset("digits")
    rows = assign_roles(dataset, "holdout", 0).validation
    images = workload.validation.get()
    expected = list(dataset.read(rows.split, rows.indices))
    assert images.labels.tolist() == dataset.labels[rows.split][rows.indices].tolist()
    assert all((image.numpy() == row.pixels).all() for image, row in zip(images.images, expected, strict=True))


class TestCorruptImages:
    """A parquet file with two rows that are no images."""

    @pytest.fixture
    def dataset(self, tmp_path):
        import io

        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "PNG")
        images = [buffer.getvalue()] * 10
        images[3] = images[7] = b"junk"
        pq.write_table(pa.table({"image": images, "label": [0, 1] * 5}), tmp_path / "train.parquet")
        return open_dataset(f"parquet:{tmp_path}")

    def rows(self, dataset):
        import numpy as np

        return Rows("train", np.arange(10))

    def test_stop_names_the_first_by_file_and_row(self, dataset):
        with pytest.raises(UserError, match=r"train.parquet row 3: corrupt image.*1 more.*data-errors skip"):
            load(dataset, self.rows(dataset), "stop", SHAPE)

    def test_skip_goes_on_and_counts(self, dataset):
        loaded = load(dataset, self.rows(dataset), "skip", SHAPE)
        assert loaded.count == 8
        assert len(loaded.skipped) == 2
        assert loaded.get().labels.tolist() == [0, 1, 0, 0, 1, 0, 0, 1]


def test_loaded_images_are_read_while_every_cpu_is_held(workload):
    """Trials hold all CPUs: reading must need none."""

    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    @ray.remote(num_cpus=1)
    class Holder:
        def count(self, loaded) -> int:
            return len(loaded.get())

    # As Tune holds them: outside of the group not one CPU is left, even while an actor waits.
    group = placement_group([{"CPU": 1}] * int(ray.cluster_resources()["CPU"]))
    ray.get(group.ready(), timeout=60)
    strategy = PlacementGroupSchedulingStrategy(group)
    holders = [Holder.options(scheduling_strategy=strategy).remote() for _ in group.bundle_specs]
    assert ray.get([holder.count.remote(workload.train) for holder in holders], timeout=60) == [400] * len(holders)
    remove_placement_group(group)
