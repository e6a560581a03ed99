"""What tests of stage 1 share."""

from ice_ray.pipelines.settings import PruningSettings
from ice_ray.training.fine_tune import Recipe

SHAPE = (3, 8, 8)
SETTINGS = PruningSettings(recipe=Recipe(batch_size=64))


def facts(records):
    """Records without what the wall's clock says."""
    return [tuple(v for k, v in record.as_dict().items() if not k.endswith("seconds")) for record in records]
