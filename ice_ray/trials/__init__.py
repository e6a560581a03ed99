"""Stage 1: the space of hyperparameters, a trial (a Ray actor), the Tune run."""
