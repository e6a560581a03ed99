"""Fine-tuning, evaluating, distilling, learning rates."""
