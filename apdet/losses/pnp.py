"""PNP-loss: penalise only the negatives before each positive (arXiv:2102.04640)."""

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from apdet.losses.ranking.error_driven import ranking_loss
from apdet.losses.ranking.steps import build_step

VARIANTS = ("O", "I_u", "I_b", "D_s", "D_q")


def pnp_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    variant: str = "D_s",
    b: float = 1.0,
    alpha: float = 2.0,
    step: str = "piecewise",
    delta: float = 1.0,
    k: float = 0.5,
    group: ProcessGroup | None = None,
) -> Tensor:
    """A function of the number of negatives in front, with the error-driven gradient.

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
    log(1 + R) + 1. Eq. 6 is kept, since the paper sets out from it and from its being zero where
    the loss is; the loss is its integral, Eq. 7 less R.

    The paper ranks hundreds of images, a detector 10^5 to 10^7 scores. The default D_s moves a
    positive by R / (1 + R) at most, as the AP-loss does. O, I_u and I_b move it the more the worse
    it stands, up to R log(1 + R): clip gradients, or lower the learning rate. D_q lets go of it:
    where R is large, as at the start of a training, nothing moves.

    Args:
        logits: (*) float. Any shape: all entries compete in one ranking, before the sigmoid.
        targets: (*) any dtype, of the same shape. 1 positive, 0 negative, -1 ignored.
        variant: one of "O", "I_u", "I_b", "D_s", "D_q".
        b: of I_b, whose derivative is bounded by 1 / b. Must be > 0.
        alpha: steepness of D_q. Must be >= 1.
        step: H, "piecewise" or "sigmoid", as in `ap_loss`.
        delta: half-width of the piecewise step, in logits. Must be > 0.
        k: width of the sigmoid step, in logits. Must be > 0.
        group: processes to rank over as one, as in `ap_loss`; None: this one alone.

    Returns:
        () float32 (float64 for float64 logits), >= 0. Without a positive, or without a negative, it
        is 0 and its gradient is all zeros.

    Raises:
        ValueError: an unknown ``variant`` or ``step``, a hyper-parameter out of range, or shapes
            that differ.
        FloatingPointError: logits that are NaN or infinite.
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

    step = build_step(step, delta=delta, k=k)
    return ranking_loss(logits, targets, criterion, step=step, group=group)
