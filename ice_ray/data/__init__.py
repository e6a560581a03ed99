"""Images as tensors, batches of them, and which images decide."""
