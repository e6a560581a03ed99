"""What every pipeline starts from."""

import pytest
from ice_runs import prepared

from ice_ray.pipelines.records import Preparation


@pytest.fixture
def preparation(executor) -> Preparation:
    return prepared(executor)
