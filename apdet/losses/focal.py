"""Focal loss (arXiv:1708.02002): fvcore's function with the interface of a loss of apdet."""

import torch
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor

from apdet.losses.checks import check_scores
from apdet.losses.interface import declare


@declare(needs=("normalizer",))
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
        alpha: weight of the positives; the weight of the negatives is 1 - alpha. Below 0, there are
            no weights.
        gamma: the exponent. A larger value gives less weight to easy entries.
        normalizer: divisor of the sum, a number or (). None: the number of positives, at least 1.

    Returns:
        () float32, because fvcore computes in float32 for any dtype of the logits.

    Raises:
        ValueError: the shapes differ, or a target is above 1.
        FloatingPointError: a logit is NaN or infinite.
    """
    check_scores(logits, targets)
    ignored = targets < 0
    dtype = torch.promote_types(logits.dtype, torch.float32)
    # Ignored entries are masked, because a boolean index would make the host wait for the device.
    logits = logits.to(dtype).masked_fill(ignored, 0)
    targets = targets.to(dtype).clamp(min=0)
    if normalizer is None:
        normalizer = (targets > 0).sum().clamp(min=1)
    loss = sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma, reduction="none")
    return loss.masked_fill(ignored, 0).sum() / normalizer
