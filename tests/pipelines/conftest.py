"""What every pipeline starts from."""

import pytest
from ice_runs import RULE

from ice_ray.pipelines.prepare import FreezeConfig, prepare
from ice_ray.pipelines.records import Preparation


@pytest.fixture
def preparation(executor) -> Preparation:
    return prepare(executor, RULE, FreezeConfig(), True)
