"""AP-loss: the detector's own metric as its classification loss (arXiv:2008.07294)."""

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from apdet.losses.ranking.error_driven import ranking_loss
from apdet.losses.ranking.steps import build_step


def ap_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    step: str = "piecewise",
    delta: float = 1.0,
    k: float = 0.5,
    interpolate: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    """One minus the average precision of a ranking, with the error-driven gradient.

    Chen et al., "AP-Loss for Accurate One-Stage Object Detection", arXiv:2008.07294. With the
    positives P, the negatives N and a step H (Eq. 21, or Eq. 54):

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
        step: "piecewise", the ramp of Eq. 21, or "sigmoid", 1 / (1 + exp(-x / k)) of Eq. 54, which
            is approximated to 1e-4.
        delta: half-width of the piecewise step, in logits. Must be > 0.
        k: width of the sigmoid step, in logits (Table X: 0.5 is best). Must be > 0.
        interpolate: whether to use interpolated AP.
        group: processes to rank over as one, all of which have to call; None: this one alone.
            See `apdet.losses.ranking.error_driven.ranking_loss` for what that does to the gradient.

    Returns:
        () float32 (float64 for float64 logits) in [0, 1]. Without a positive, or without a
        negative, it is 0 and its gradient is all zeros.

    Raises:
        ValueError: an unknown ``step``, ``delta`` or ``k`` not above 0, or shapes that differ.
        FloatingPointError: logits that are NaN or infinite.
    """

    def criterion(rank_pos: Tensor, rank_neg: Tensor, num_neg: int) -> tuple[Tensor, Tensor]:
        error = rank_neg / (rank_pos + rank_neg)  # (P,) 1 - precision
        if interpolate:
            error = error.cummin(0).values  # the running maximum of precision
        # Row i of L sums to error_i, so it is H times this; nothing above, nothing to blame.
        return error, torch.where(rank_neg > 0, error / rank_neg, 0)

    step = build_step(step, delta=delta, k=k)
    return ranking_loss(logits, targets, criterion, step=step, group=group)
