"""DR-loss: rank the expected positive above the expected negative (arXiv:1907.10156)."""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from apdet.losses.checks import check_scores


def dr_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    pos_lambda: float = 1.0,
    neg_lambda: float = 0.1 / math.log(3.5),
    margin: float = 0.5,
    smoothness: float = 6.0,
    tau: float = 4.0,
) -> Tensor:
    """Rank the mean probability of hard positives above the mean probability of hard negatives.

    Qian et al., "DR Loss: Improving Object Detection by Distributional Ranking", CVPR 2020,
    arXiv:1907.10156. With the probabilities p = sigmoid(logits), weighted by their difficulty,

        P+   = sum_{i in P} softmax(-p / pos_lambda)_i p_i
        P-   = sum_{j in N} softmax(p / neg_lambda)_j p_j
        loss = tau / L log(1 + exp(L (P- - P+ + margin)))        L the smoothness

    The paper has one pair of distributions for each image. This function has one pair for all
    entries, like the authors' code. The gradient includes the derivative of the weights. Without a
    positive, P+ is 1. Without a negative, P- is 0.

    Args:
        logits: (*) float, before the sigmoid.
        targets: (*) any dtype, of the same shape. 1 positive, 0 negative, -1 ignored.
        pos_lambda: a smaller value gives more weight to the lowest positives. Must be > 0.
        neg_lambda: a smaller value gives more weight to the highest negatives. Must be > 0.
        margin: the distance that P+ should have from P-, in probability.
        smoothness: L. A larger value makes the loss more like a hinge. Must be > 0.
        tau: factor of the loss.

    Returns:
        () float32 (float64 for float64 logits).

    Raises:
        ValueError: the shapes differ, a target is above 1, or a hyper-parameter is out of range.
        FloatingPointError: a logit is NaN or infinite.
    """
    scales = {"pos_lambda": pos_lambda, "neg_lambda": neg_lambda, "smoothness": smoothness}
    for name, value in scales.items():
        if not value > 0:
            raise ValueError(f"{name} must be > 0, got {value}")
    check_scores(logits, targets)
    # In float64, because torch's float32 softmax over 10^6 entries has an error of 3e-4.
    pos = logits[targets == 1].double().sigmoid()  # (P,)
    neg = logits[targets == 0].double().sigmoid()  # (N,)
    pos_mean = ((-pos / pos_lambda).softmax(0) * pos).sum() if len(pos) else 1.0
    neg_mean = ((neg / neg_lambda).softmax(0) * neg).sum()
    loss = tau / smoothness * F.softplus(smoothness * (neg_mean - pos_mean + margin))
    return loss.to(torch.promote_types(logits.dtype, torch.float32))
