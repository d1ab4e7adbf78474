"""AP-loss: average precision as a classification loss (arXiv:2008.07294)."""

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from apdet.losses.interface import declare
from apdet.losses.ranking import choose_step, ranking_loss


@declare(needs=("group",))
def ap_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    step: str = "piecewise",
    delta: float | None = None,
    k: float | None = None,
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

    Interpolation (Algorithm 1) gives each positive the best precision of all positives at or below
    its score, and scales its row of L to match. The gradient g is an error-driven update, not the
    derivative of the loss. The gradient sums to zero, and a shift of all scores does not change it.

    Args:
        logits: (*) float. Any shape: all entries compete in one ranking, before the sigmoid.
        targets: (*) any dtype, of the same shape. 1 positive, 0 negative, -1 ignored.
        step: the step H. "piecewise": the ramp of Eq. 21. "sigmoid": 1 / (1 + exp(-x / k)) of
            Eq. 54, with an error of at most 1e-4.
        delta: half-width of the piecewise step, in logits. Must be > 0; None: 1.
        k: width of the sigmoid step, in logits. Must be > 0; None: 0.5, the best of Table X.
        interpolate: whether to use interpolated AP.
        group: the processes that rank together; all of them must call. None: only this process.
            `apdet.losses.ranking_loss` describes the effect on the gradient.

    Returns:
        () float32 (float64 for float64 logits) in [0, 1]. Without a positive, or without a
        negative, it is 0 and its gradient is all zeros.

    Raises:
        ValueError: ``step`` is unknown, a width is not above 0 or belongs to the other step, the
            shapes differ, or a target is above 1.
        FloatingPointError: a logit is NaN or infinite.
    """

    def criterion(rank_pos: Tensor, rank_neg: Tensor, num_neg: int) -> tuple[Tensor, Tensor]:
        error = rank_neg / (rank_pos + rank_neg)  # (P,) 1 - precision
        if interpolate:
            error = error.cummin(0).values  # the running maximum of precision
        # Row i of L is H times a weight, and its sum is error_i. If no negative is above, it is 0.
        return error, torch.where(rank_neg > 0, error / rank_neg, 0)

    chosen = choose_step(step, delta=delta, k=k)
    return ranking_loss(logits, targets, criterion, step=chosen, group=group)
