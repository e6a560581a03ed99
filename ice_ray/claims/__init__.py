"""Claims: one job at a time writes to a run."""
