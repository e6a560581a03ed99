"""Images of your own: a function that returns Ray Data datasets, here of scikit-learn's digits.

From the repository's root; the weights are what any run on `--data digits` leaves, trained on the same split:

    python jobs/ice_prune.py --data examples.dataset:build --weights runs/NAME/dense.safetensors
"""

import numpy as np
import ray.data
from sklearn.datasets import load_digits

from ice_ray.data.splits import stratified_sample


def build() -> dict[str, ray.data.Dataset]:
    """Two splits; columns `image`, here grey uint8 (8, 8), and `label`, an integer from 0."""
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    rows = [{"image": image, "label": int(label)} for image, label in zip(images, digits.target, strict=True)]
    test = set(stratified_sample(digits.target, 539, 0, "digits test split").tolist())
    return {
        "train": ray.data.from_items([row for number, row in enumerate(rows) if number not in test]),
        "test": ray.data.from_items([row for number, row in enumerate(rows) if number in test]),
    }
