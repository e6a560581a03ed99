"""Images as tensors, batches of them, and where they are held."""
