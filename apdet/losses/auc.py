"""AUC-loss: the area above the ROC curve, which arXiv:2008.07294 compares with the AP-loss."""

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from apdet.losses.interface import declare
from apdet.losses.ranking import choose_step, ranking_loss


@declare(needs=("group",))
def auc_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    step: str = "piecewise",
    delta: float | None = None,
    k: float | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """One minus the area under the ROC curve of a ranking, with the error-driven gradient.

    Chen et al., arXiv:2008.07294, Eq. 7. All pairs have the same weight, whatever their ranks:

        L_ij = H(s_j - s_i) / |N|
        loss = 1/|P| sum_{i in P} sum_{j in N} L_ij

    Args:
        logits: (*) float. Any shape: all entries compete in one ranking, before the sigmoid.
        targets: (*) any dtype, of the same shape. 1 positive, 0 negative, -1 ignored.
        step: the step H, "piecewise" or "sigmoid", as in `ap_loss`.
        delta: half-width of the piecewise step, in logits. Must be > 0; None: 1.
        k: width of the sigmoid step, in logits. Must be > 0; None: 0.5.
        group: the processes that rank together, as in `ap_loss`. None: only this process.

    Returns:
        () float32 (float64 for float64 logits) in [0, 1]. Without a positive, or without a
        negative, it is 0 and its gradient is all zeros.

    Raises:
        ValueError: ``step`` is unknown, a width is not above 0 or belongs to the other step, the
            shapes differ, or a target is above 1.
        FloatingPointError: a logit is NaN or infinite.
    """

    def criterion(rank_pos: Tensor, rank_neg: Tensor, num_neg: int) -> tuple[Tensor, Tensor]:
        share = 1 / max(num_neg, 1)
        return share * rank_neg, torch.full_like(rank_neg, share)

    chosen = choose_step(step, delta=delta, k=k)
    return ranking_loss(logits, targets, criterion, step=chosen, group=group)
