"""Stage 2: the winner replayed on the full training set, data-parallel, by Ray Train."""
