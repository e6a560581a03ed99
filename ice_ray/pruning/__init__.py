"""What may be pruned, which filters go, how they are removed, which layers are frozen."""
