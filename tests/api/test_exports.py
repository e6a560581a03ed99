"""Whatever a keyword needs is a name of the package."""

import dataclasses
import typing
from pathlib import Path

import pytest

import ice_ray
from ice_ray.pipelines.registry import PIPELINES


def test_every_name_is_there_and_no_other():
    for name in ice_ray.__all__:
        assert getattr(ice_ray, name).__doc__ or name == "NEVER"
    with pytest.raises(AttributeError, match="no attribute 'prun'"):
        _ = ice_ray.prun


def test_a_name_of_an_earlier_version_says_where_it_went():
    moved = (Path(__file__).parents[2] / "docs" / "moved.md").read_text()
    for name in ice_ray._MOVED:
        with pytest.raises(AttributeError, match=rf"no attribute '{name}': .*\(docs/moved\.md\)$"):
            getattr(ice_ray, name)
        assert f"{name}`" in moved


@pytest.mark.parametrize("name", PIPELINES)
def test_settings_of_every_pipeline_can_be_made_with_the_package_s_names(name):
    kind = PIPELINES[name]
    assert getattr(ice_ray, kind.Config.__name__) is kind.Config
    assert getattr(ice_ray, kind.Hyperparameters.__name__) is kind.Hyperparameters
    hints = typing.get_type_hints(kind.Config)
    for field in dataclasses.fields(kind.Config):
        if dataclasses.is_dataclass(hints[field.name]):
            assert getattr(ice_ray, hints[field.name].__name__) is hints[field.name]


def test_every_public_function_has_an_example_on_a_module_of_the_user_s():
    for name in ("prune", "inspect", "load_weights", "Result"):
        found = getattr(ice_ray, name)
        assert ">>> class Net(nn.Module)" in found.__doc__
