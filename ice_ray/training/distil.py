"""Knowledge distillation from the unpruned model."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL divergence from the teacher's softened classes to the student's, mean over the batch (section IV-A).

    As in the paper's CIFAR-10 recipe there is no factor T^2.

    Args:
        logits, teacher_logits: (n, classes), float32, the teacher's without gradient.
        temperature: T, which divides both; 2 in the recipe.
    """
    return F.kl_div(
        F.log_softmax(logits / temperature, dim=1),
        F.log_softmax(teacher_logits / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
