"""ice_ray."""
