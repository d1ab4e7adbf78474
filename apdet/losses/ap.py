"""AP-loss: the detector's own metric as its classification loss (arXiv:2008.07294)."""

import torch
from torch import Tensor

from apdet.losses.error_driven import attach_gradient, check_scores
from apdet.losses.rank_sums import blame_sums, rank_sums


def ap_loss(
    logits: Tensor, targets: Tensor, *, delta: float = 1.0, interpolate: bool = True
) -> Tensor:
    """One minus the average precision of a ranking, with the error-driven gradient.

    Chen et al., "AP-Loss for Accurate One-Stage Object Detection", arXiv:2008.07294. With the
    positives P, the negatives N and the piecewise step H of half-width ``delta`` (Eq. 21):

        rank+_i = 1 + sum_{k in P, k != i} H(s_k - s_i)
        rank-_i = sum_{j in N} H(s_j - s_i)
        L_ij    = H(s_j - s_i) / (rank+_i + rank-_i)                         (Eq. 3)
        loss    = 1/|P| sum_{i in P} sum_{j in N} L_ij                       (Eq. 5)
        g_j     = 1/|P| sum_i L_ij  (j in N)                                 (Eq. 14)
        g_i     = -1/|P| sum_j L_ij (i in P)

    Interpolation (Algorithm 1) gives a positive the best precision of all positives at or below
    its score, and scales its row of L to match. The gradient g is an error-driven update, not the
    derivative of the loss: it sums to zero and is blind to a shift of all scores.

    Args:
        logits: (*) float. Any shape: all entries compete in one ranking, before the sigmoid.
        targets: (*) any dtype, of the same shape. 1 positive, 0 negative, -1 ignored.
        delta: half-width of the step, in logits. Must be > 0.
        interpolate: whether to use interpolated AP.

    Returns:
        () float32 (float64 for float64 logits) in [0, 1]. Without a positive, or without a
        negative, it is 0 and its gradient is all zeros.

    Raises:
        ValueError: ``delta`` not above 0, or shapes that differ.
        FloatingPointError: logits that are NaN or infinite.
    """
    if not delta > 0:
        raise ValueError(f"delta must be > 0, got {delta}")
    check_scores(logits, targets)
    loss, grad = _loss_and_grad(logits.detach(), targets, delta, interpolate)
    return attach_gradient(logits, loss, grad)


def _loss_and_grad(
    logits: Tensor, targets: Tensor, delta: float, interpolate: bool
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    grad = torch.zeros(logits.shape, dtype=dtype, device=logits.device)
    pos_mask = targets > 0
    if not pos_mask.any():
        return grad.new_zeros(()), grad

    pos, order = logits[pos_mask].double().sort()  # (P,) ascending
    neg_mask = (targets == 0) & (logits > _below(pos[0] - delta, logits.dtype))
    neg = logits[neg_mask]  # (Q,) the relevant negatives: the others outrank no positive

    rank_pos = rank_sums(pos, pos, delta) + 0.5  # the self term counts 1, H(0) only half
    rank_neg = rank_sums(pos, neg, delta)
    error = rank_neg / (rank_pos + rank_neg)  # (P,) 1 - precision
    if interpolate:
        error = error.cummin(0).values
    # Row i of L sums to error_i, so it is H(s_j - s_i) times this; nothing above, nothing to blame.
    weights = torch.where(rank_neg > 0, error / rank_neg, 0) / len(pos)

    grad_pos = torch.empty_like(error).scatter_(0, order, -error / len(pos))
    grad[pos_mask] = grad_pos.to(dtype)
    grad[neg_mask] = blame_sums(pos, weights, neg, delta).to(dtype)
    return error.mean().to(dtype), grad


def _below(score: Tensor, dtype: torch.dtype) -> Tensor:
    """A bound at or below ``score`` () float64, even after a comparison rounds it to ``dtype``."""
    return score - score.abs() * torch.finfo(dtype).eps
