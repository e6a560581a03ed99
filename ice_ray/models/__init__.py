"""Building dense models, loading their weights, and what a traced model tells of its layers."""
