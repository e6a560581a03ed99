"""What tests of stage 1 share."""

from ice_runs import PAPER, paper

from ice_ray.pipelines.settings import PruningSettings

SHAPE = (3, 8, 8)
SETTINGS = PruningSettings(config=paper(), batch_size=64)
OPTIONS = PAPER | {"batch_size": 64}


def facts(records):
    """Records without what the wall's clock says."""
    return [tuple(v for k, v in record.as_dict().items() if not k.endswith("seconds")) for record in records]
