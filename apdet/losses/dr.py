"""DR-loss: rank the distribution of positives above that of negatives (arXiv:1907.10156)."""

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
    """Rank the expected probability of hard positives above that of hard negatives.

    Qian et al., "DR Loss: Improving Object Detection by Distributional Ranking", CVPR 2020,
    arXiv:1907.10156. With the probabilities p = sigmoid(logits), the harder the more weight,

        P+   = sum_{i in P} softmax(-p / pos_lambda)_i p_i
        P-   = sum_{j in N} softmax(p / neg_lambda)_j p_j
        loss = tau / L log(1 + exp(L (P- - P+ + margin)))        L the smoothness

    The paper has one such pair of distributions an image; here, as in the authors' code, it is one
    for all entries. Gradients flow through the weights too. P+ is 1 without a positive, P- is 0
    without a negative.

    Args:
        logits: (*) float, before the sigmoid.
        targets: (*) any dtype, of the same shape. 1 positive, 0 negative, -1 ignored.
        pos_lambda: the smaller, the more weight is on the lowest positives. Must be > 0.
        neg_lambda: the smaller, the more weight is on the highest negatives. Must be > 0.
        margin: how far apart, in probability, the distributions have to be.
        smoothness: the larger, the closer the loss comes to a hinge. Must be > 0.
        tau: factor of the loss.

    Returns:
        () float32 (float64 for float64 logits).

    Raises:
        ValueError: shapes that differ, a target above 1, or a hyper-parameter out of range.
        FloatingPointError: logits that are NaN or infinite.
    """
    scales = {"pos_lambda": pos_lambda, "neg_lambda": neg_lambda, "smoothness": smoothness}
    for name, value in scales.items():
        if not value > 0:
            raise ValueError(f"{name} must be > 0, got {value}")
    check_scores(logits, targets)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    pos = logits[targets == 1].to(dtype).sigmoid()  # (P,)
    neg = logits[targets == 0].to(dtype).sigmoid()  # (N,)
    pos_mean = ((-pos / pos_lambda).softmax(0) * pos).sum() if len(pos) else 1.0
    neg_mean = ((neg / neg_lambda).softmax(0) * neg).sum()
    return tau / smoothness * F.softplus(smoothness * (neg_mean - pos_mean + margin))
