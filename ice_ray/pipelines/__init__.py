"""Pipelines: what is decided, a file each. They emit actions and never touch a tensor of the network."""
