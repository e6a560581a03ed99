"""Who writes to a run: claimed before anything is decided, and by one job at a time."""
