"""Focal loss (arXiv:1708.02002), fvcore's, with the signature of this package's losses."""

import torch
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor

from apdet.losses.checks import check_scores


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Sum of fvcore's ``sigmoid_focal_loss`` over all entries, divided by a normaliser.

    Lin et al., "Focal Loss for Dense Object Detection", arXiv:1708.02002, Eq. 5.

    Args:
        logits: (*) float, before the sigmoid.
        targets: (*) any dtype, of the same shape. 1 positive, 0 negative, -1 ignored.
        alpha: weight of the positives, 1 - alpha that of the negatives; below 0, no weights.
        gamma: exponent that plays down easy entries.
        normalizer: what the sum is divided by; None: the number of positives, at least 1.

    Returns:
        () float32 (float64 for float64 logits).

    Raises:
        ValueError: shapes that differ.
        FloatingPointError: logits that are NaN or infinite.
    """
    check_scores(logits, targets)
    valid = targets >= 0
    dtype = torch.promote_types(logits.dtype, torch.float32)
    logits, targets = logits[valid].to(dtype), targets[valid].to(dtype)
    if normalizer is None:
        normalizer = (targets > 0).sum().clamp(min=1)
    loss = sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma, reduction="sum")
    return loss / normalizer
