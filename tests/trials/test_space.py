"""Spaces: the paper's grids, seeded samples, and files that are none."""

import pytest

from ice_ray.errors import UserError
from ice_ray.hyperparameters import NEVER, IceHyperparameters
from ice_ray.pipelines.registry import PIPELINES
from ice_ray.trials.space import load_space, named_spaces

GOOD = """
accuracy_drop_threshold: [0.5, 1.5]
frozen_fraction: 0.3
base_learning_rate: [0.001]
learning_rate_reduction: [0.0006]
midpoint_pruned_share: [0.1]
steepness: [40, 50, 60]
"""


@pytest.mark.parametrize("name", ["paper-cifar10", "paper-tinyimagenet", "paper-imagenet"])
def test_the_paper_s_grids_have_216_points(name):
    points = load_space(name).points()
    assert len(points) == len(set(points)) == 216


def test_the_cifar10_grid_holds_the_choice_that_its_authors_program_made():
    assert IceHyperparameters(0.5, 0.9, 0.005, 6e-4, 0.15, 50) in load_space("paper-cifar10").points()


def test_a_sample_is_seeded_and_without_repetition():
    space = load_space("paper-cifar10")
    six = space.sample(6, seed=0)
    assert six == space.sample(6, seed=0) != space.sample(6, seed=1)
    assert len(set(six)) == 6
    assert space.sample(12, seed=0)[:6] == six
    assert set(space.sample(216, seed=0)) == set(space.points())
    assert space.sample(None, seed=0) == space.points()


def test_a_file_of_the_user_s_own(tmp_path):
    (tmp_path / "mine.yaml").write_text(GOOD)
    assert len(load_space(str(tmp_path / "mine.yaml")).points()) == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must map"),
        ("[1, 2]", "must map"),
        ("a: [", "not YAML"),
        (GOOD.replace("steepness", "stepness"), "missing steepness"),
        (GOOD + "extra: 1\n", "unknown extra"),
        (GOOD.replace("[40, 50, 60]", "[]"), "steepness must be a number or a list"),
        (GOOD.replace("[40, 50, 60]", "fifty"), "steepness must be a number"),
        (GOOD.replace("[40, 50, 60]", "[true]"), "steepness must be a number"),
        (GOOD.replace("[0.0006]", "[0.0006, 0.002]"), "learning_rate_reduction=0.002"),
        (GOOD.replace("[40, 50, 60]", "never"), "steepness must be a number"),
        (GOOD.replace("[0.5, 1.5]", "[0.5, always]"), "must be a number or a list of numbers, or never, not"),
        (GOOD.replace("[0.5, 1.5]", "[]"), "accuracy_drop_threshold must be a number"),
        ("final_epochs: [0, 4]", "missing accuracy_drop_threshold"),
        ("accuracy_drop_threshold: [never, 2]", "missing base_learning_rate, .*not never throughout"),
        (GOOD.replace("[0.5, 1.5]", "[never, [1]]"), "must be a number or a list"),
    ],
)
def test_files_that_are_no_space(tmp_path, text, said):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        load_space(str(tmp_path / "mine.yaml"))


def test_unknown_names_and_impossible_counts(tmp_path):
    of_the_paper = {"paper-cifar10", "paper-imagenet", "paper-tinyimagenet"}
    assert set(named_spaces()) == {"default", "imagenet", "no-training", *of_the_paper}
    with pytest.raises(UserError, match="nearest: paper-cifar10"):
        load_space("paper-cifar")
    with pytest.raises(UserError, match="no such file"):
        load_space(str(tmp_path / "none.yaml"))
    with pytest.raises(UserError, match="take 1 to 216"):
        load_space("paper-cifar10").sample(217, 0)


def test_what_has_a_default_may_be_left_out_or_searched(tmp_path):
    (tmp_path / "mine.yaml").write_text(GOOD + "final_epochs: [0, 0.5]\nfinal_learning_rate: 0.05\n")
    space = load_space(str(tmp_path / "mine.yaml"))
    assert len(space.points()) == 12
    assert {point.final_epochs for point in space.points()} == {0, 0.5}
    assert space.bounds.ranges["final_learning_rate"] == (0.05, 0.05)
    for point in space.bounds.draw(20, 0):
        assert 0 <= point.final_epochs <= 0.5
        space.bounds.check(point, "a draw")
    other = load_space("paper-cifar10").bounds
    with pytest.raises(UserError, match=r"final_epochs=0\.5 is outside"):
        other.check(space.points()[-1], "here")


def test_rates_of_no_retraining_are_one_point(tmp_path):
    (tmp_path / "mine.yaml").write_text(GOOD + "final_epochs: [0, 4]\nfinal_learning_rate: [0.01, 0.03]\n")
    space = load_space(str(tmp_path / "mine.yaml"))
    ends = [(point.final_epochs, point.final_learning_rate) for point in space.points()]
    assert ends[:3] == [(0, 0), (4, 0.01), (4, 0.03)]
    assert len(ends) == len(set(space.points())) == 6 * 3
    with pytest.raises(UserError, match="take 1 to 18"):
        space.sample(19, 0)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_pipeline_has_a_default_space(pipeline):
    assert len(load_space("default", pipeline).points()) > 1


def test_the_default_space_is_small_and_asks_whether_to_fine_tune():
    points = load_space("default").points()
    assert len(points) <= 12
    thetas = {point.accuracy_drop_threshold for point in points}
    assert NEVER in thetas
    assert len(thetas) >= 2


def test_a_pipeline_of_the_user_s_own_takes_the_spaces_of_the_one_whose_hyperparameters_it_searches():
    assert (
        load_space("default", "examples.pipeline:EveryFewSteps").points() == load_space("default", "baseline").points()
    )


FINAL = "final_epochs: [0, 4]\nfinal_learning_rate: [0.01, 0.03]\n"


def space_of(folder, text):
    (folder / "mine.yaml").write_text(text)
    return load_space(str(folder / "mine.yaml"))


def test_where_theta_is_never_throughout_it_is_all_that_a_space_must_name(tmp_path):
    assert space_of(tmp_path, "accuracy_drop_threshold: never\n").points() == (IceHyperparameters(),)
    points = space_of(tmp_path, "accuracy_drop_threshold: [never]\n" + FINAL).points()
    assert [(point.final_epochs, point.final_learning_rate) for point in points] == [(0, 0), (4, 0.01), (4, 0.03)]
    assert {point.accuracy_drop_threshold for point in points} == {NEVER}


def test_never_beside_other_thetas_is_one_point_whatever_the_rates_are(tmp_path):
    space = space_of(
        tmp_path, GOOD.replace("[0.5, 1.5]", "[never, 0.5, 1.5]") + "final_epochs: [0, 4]\nfinal_learning_rate: 0.01\n"
    )
    points = space.points()
    assert len(points) == len(set(points)) == 2 * (1 + 2 * 3)
    assert points[:2] == (IceHyperparameters(), IceHyperparameters(final_epochs=4, final_learning_rate=0.01))


def test_a_run_that_does_not_go_by_theta_takes_the_first_finite_one(tmp_path):
    idle = ("accuracy_drop_threshold", "frozen_fraction")
    space = space_of(tmp_path, GOOD.replace("[0.5, 1.5]", "[never, 1.5, 0.5]")).fixing(idle)
    assert {point.accuracy_drop_threshold for point in space.points()} == {1.5}
    assert len(space.points()) == 3
    with pytest.raises(
        UserError, match=r"always never.*needs a finite one, with frozen_fraction, base_learning_rate"
    ) as e:
        space_of(tmp_path, "accuracy_drop_threshold: never\n" + FINAL).fixing(idle)
    assert "\n" not in str(e.value)
    assert len(space_of(tmp_path, "accuracy_drop_threshold: never\n").fixing(("frozen_fraction",)).points()) == 1
