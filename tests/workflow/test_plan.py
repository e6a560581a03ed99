"""A run's description checked against its data and model: no Ray."""

import pytest

from ice_ray.config.command_line import parse
from ice_ray.config.run import RunConfig
from ice_ray.workflow.plan import make_plan


@pytest.mark.parametrize(
    ("words", "batch"),
    [
        ("", 32),  # digits: trials have half of the images
        ("--search.subsample 0.2 --replay.subsample 0.3", 32),
        ("--search.subsample 0.3 --replay.subsample 0.3", 128),
        ("--search.subsample 0.3 --replay.subsample 0.3 --batch-size 64", 64),
        ("--search.subsample 0.3 --replay.subsample 0.2", 128),
        ("--batch-size 16", 16),
        ("--search.subsample 0.3 --replay.subsample 0.3 --search.batch-size 24", 24),
    ],
)
def test_trials_with_the_replays_images_take_its_batches(words, batch):
    plan = make_plan(parse(RunConfig, words.split(), "p"))
    assert plan.search_settings.recipe.batch_size == batch
