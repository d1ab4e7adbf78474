"""PNP-loss: penalise the number of negatives above each positive (arXiv:2102.04640)."""

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from apdet.losses.interface import declare
from apdet.losses.ranking import choose_step, ranking_loss

VARIANTS = ("O", "I_u", "I_b", "D_s", "D_q")


@declare(needs=("group",))
def pnp_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    variant: str = "D_s",
    b: float = 1.0,
    alpha: float = 2.0,
    step: str = "piecewise",
    delta: float | None = None,
    k: float | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Penalise the number of negatives above each positive, with the error-driven gradient.

    Li et al., "Rethinking the Optimization of Average Precision: Only Penalizing Negative Instances
    before Positive Ones is Enough", AAAI 2022. With R_i = sum_{j in N} H(s_j - s_i) the loss is the
    mean of f(R_i) over the positives, and the update of the pair (i, j) is f'(R_i) H(s_j - s_i):

        variant   f(R)                           f'(R)
        O         R                              1                            (Eq. 5)
        I_u       (1 + R) log(1 + R) - R         log(1 + R)                   (Eq. 6)
        I_b       (b R - log(1 + b R)) / b^2     R / (1 + b R)                (Eqs. 8, 9)
        D_s       log(1 + R)                     1 / (1 + R)                  (Eqs. 10, 12)
        D_q       1 - (1 + R)^-alpha             alpha (1 + R)^-(alpha + 1)   (Eqs. 11, 13)

    The paper's Eqs. 6 and 7 contradict each other: the derivative of Eq. 7, (1 + R) log(1 + R), is
    log(1 + R) + 1. We use Eq. 6, because the paper starts from it, and because it is zero where the
    loss is zero. The loss is the integral of Eq. 6, which is Eq. 7 minus R.

    The paper ranks hundreds of images, but a detector ranks 10^5 to 10^7 scores, so R can be large.
    The update of a positive is -R f'(R) / |P|. For the default D_s, R f'(R) stays below 1, as for
    the AP-loss. For O, I_u and I_b it grows with R, up to R log(1 + R): clip gradients, or lower
    the learning rate. For D_q it goes to 0 as R grows, so positives with a large R, as at the start
    of a training, hardly move.

    Args:
        logits: (*) float. Any shape: all entries compete in one ranking, before the sigmoid.
        targets: (*) any dtype, of the same shape. 1 positive, 0 negative, -1 ignored.
        variant: one of "O", "I_u", "I_b", "D_s", "D_q".
        b: parameter of I_b; the derivative f' is below 1 / b. Must be > 0.
        alpha: parameter of D_q. A larger value makes it steeper. Must be >= 1.
        step: the step H, "piecewise" or "sigmoid", as in `ap_loss`.
        delta: half-width of the piecewise step, in logits. Must be > 0; None: 1.
        k: width of the sigmoid step, in logits. Must be > 0; None: 0.5.
        group: the processes that rank together, as in `ap_loss`. None: only this process.

    Returns:
        () float32 (float64 for float64 logits), >= 0. Without a positive, or without a negative, it
        is 0 and its gradient is all zeros.

    Raises:
        ValueError: ``variant`` or ``step`` is unknown, a hyper-parameter is out of range or belongs
            to the other step, the shapes differ, or a target is above 1.
        FloatingPointError: a logit is NaN or infinite.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
    if not b > 0:
        raise ValueError(f"b must be > 0, got {b}")
    if not alpha >= 1:
        raise ValueError(f"alpha must be >= 1, got {alpha}")

    def criterion(rank_pos: Tensor, rank_neg: Tensor, num_neg: int) -> tuple[Tensor, Tensor]:
        log = rank_neg.log1p()  # log(1 + R), (P,)
        if variant == "O":
            return rank_neg, torch.ones_like(rank_neg)
        if variant == "I_u":
            return (1 + rank_neg) * log - rank_neg, log
        if variant == "I_b":
            scaled = b * rank_neg
            return (scaled - scaled.log1p()) / b**2, rank_neg / (1 + scaled)
        if variant == "D_s":
            return log, 1 / (1 + rank_neg)
        return -torch.expm1(-alpha * log), alpha * torch.exp(-(alpha + 1) * log)

    chosen = choose_step(step, delta=delta, k=k)
    return ranking_loss(logits, targets, criterion, step=chosen, group=group)
