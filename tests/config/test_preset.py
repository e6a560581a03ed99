"""Presets: every key an option, every value one that the option takes, the paper's figures, options before presets."""

import dataclasses

import pytest

from ice_ray.config.command_line import parse
from ice_ray.config.preset import load_preset, named_presets, parse_preset
from ice_ray.config.run import RunConfig, flat_options
from ice_ray.errors import UserError
from ice_ray.pipelines.baseline import BaselineConfig
from ice_ray.pipelines.imp import ImpConfig
from ice_ray.pipelines.registry import PIPELINES
from ice_ray.training.config import FineTuneConfig
from ice_ray.trials.space import load_space

PAPER = ["paper-cifar10", "paper-imagenet", "paper-tinyimagenet"]


def test_these_come_with_the_package():
    assert named_presets() == [*PAPER, "small"]


@pytest.mark.parametrize("name", named_presets())
def test_a_preset_is_what_its_options_would_be(name):
    """The command line checks kinds and choices, which the file's values go through without."""
    asked = dataclasses.replace(load_preset(name), preset=None)
    usual = options(RunConfig())
    given: list[str] = []
    for option, value in options(asked).items():
        if value != usual[option]:
            group, _, last = option.rpartition(".")
            off = f"--{group}.no-{last}" if group else f"--no-{last}"
            if isinstance(value, bool) and usual[option] is None:  # on, off or neither
                given += [f"--{option}", "yes" if value else "no"]
            else:
                given += [off] if value is False else [f"--{option}", str(value)]
    assert given
    assert parse(RunConfig, given, "p") == asked


def options(config: RunConfig) -> dict[str, object]:
    """Every option's value by its name."""
    return flat_options(config.as_dict())


@pytest.mark.parametrize(
    ("name", "trials", "subsample", "images", "batch", "distil", "replay", "final"),
    [
        ("paper-cifar10", 6, 0.02, 200, 128, True, 1.0, 0),
        ("paper-tinyimagenet", 3, 0.002, 20, 128, False, 0.02, 4),
        ("paper-imagenet", 7, 0.001, 50, 256, False, 0.1, 0),
    ],
)
def test_the_paper_s_figures(name, trials, subsample, images, batch, distil, replay, final):
    config = load_preset(name)
    search = config.search
    assert (search.trials, search.subsample, search.eval_images) == (trials, subsample, images)
    assert (config.batch_size, config.options.fine_tune.distil, config.decide_on) == (batch, distil, "test")
    assert (config.replay.subsample, config.options.final.epochs) == (replay, final)
    assert len(load_space(config.space).points()) == 216


def test_options_come_before_the_preset_wherever_it_stands():
    for arguments in (
        ["--preset", "paper-cifar10", "--search.trials", "2", "--model", "m:f", "--fine-tune.no-distil"],
        ["--search.trials", "2", "--model", "m:f", "--fine-tune.no-distil", "--preset=paper-cifar10"],
    ):
        config = parse(RunConfig, arguments, "p")
        assert (config.search.trials, config.model, config.options.fine_tune.distil) == (2, "m:f", False)
        assert (config.search.eval_images, config.data, config.preset) == (200, "cifar10", "paper-cifar10")


def test_the_preset_s_name_decides_nothing():
    config = parse(RunConfig, ["--preset", "paper-imagenet"], "p")
    assert "preset" not in config.deciding()
    assert config.deciding()["search.trials"] == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modle: m", "no option 'modle' \\(nearest: model"),
        ("search: {trails: 3}", "search: no option 'trails' \\(nearest: trials"),
        ("search: 3", "search must map options to values"),
        ("- model", "must map options to values"),
        ("batch-size: 1", "at least 2"),
        ("search: {subsample: 2}", "in \\(0, 1\\]"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(text, said):
    with pytest.raises(UserError, match=said):
        parse_preset("mine", text)


def test_a_target_takes_the_place_of_a_preset_s_ratio():
    config = parse(RunConfig, ["--preset", "paper-cifar10", "--target", "macs=0.5"], "p")
    assert (config.deciding()["ratio"], config.target) == (None, "macs=0.5")


@pytest.mark.parametrize("preset", named_presets())
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_preset_goes_with_every_pipeline(preset, pipeline):
    """A grid that is another pipeline's goes, and with it the number of its points."""
    config = parse(RunConfig, ["--preset", preset, "--pipeline", pipeline], "p")
    space = load_space(config.space or "default", pipeline)
    assert space.sample(config.search.trials, 0)
    assert config.search.trials == (load_preset(preset).search.trials if pipeline == "ice" else None)
    assert config.space == (load_preset(preset).space if pipeline == "ice" else None)


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_presets_are_the_paper(name):
    config = load_preset(name)
    own = config.options
    assert (own.repair, own.criterion, own.decision_error, config.search.objective) == ("none", "l1", 0, "eq2")
    repaired = RunConfig()
    assert (repaired.pipeline, repaired.options.repair, repaired.options.criterion) == (
        "ice",
        "reconstruction",
        "residual",
    )
    assert repaired.search.objective == "nearly-best"


def test_what_a_preset_says_of_options_that_a_pipeline_has_not_is_passed_over():
    config = parse(RunConfig, ["--preset", "paper-tinyimagenet", "--pipeline", "imp"], "p")
    assert config.options == ImpConfig(ratio=0.6, fine_tune=FineTuneConfig(distil=False))


def test_what_a_preset_says_nothing_of_is_the_pipeline_s_own_default():
    """Not ice's, whose presets these are."""
    config = parse(RunConfig, ["--preset", "small", "--pipeline", "baseline"], "p")
    assert config.options == BaselineConfig()
    assert config.batch_size == 64
