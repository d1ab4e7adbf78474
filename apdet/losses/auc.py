"""AUC-loss: the area above the ROC curve, the rival ranking loss of arXiv:2008.07294."""

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from apdet.losses.ranking.error_driven import ranking_loss
from apdet.losses.ranking.steps import build_step


def auc_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    step: str = "piecewise",
    delta: float = 1.0,
    k: float = 0.5,
    group: ProcessGroup | None = None,
) -> Tensor:
    """One minus the area under the ROC curve of a ranking, with the error-driven gradient.

    Chen et al., arXiv:2008.07294, Eq. 7. All pairs count alike, wherever in the ranking they are:

        L_ij = H(s_j - s_i) / |N|
        loss = 1/|P| sum_{i in P} sum_{j in N} L_ij

    Args:
        logits: (*) float. Any shape: all entries compete in one ranking, before the sigmoid.
        targets: (*) any dtype, of the same shape. 1 positive, 0 negative, -1 ignored.
        step: H, "piecewise" or "sigmoid", as in `ap_loss`.
        delta: half-width of the piecewise step, in logits. Must be > 0.
        k: width of the sigmoid step, in logits. Must be > 0.
        group: processes to rank over as one, as in `ap_loss`; None: this one alone.

    Returns:
        () float32 (float64 for float64 logits) in [0, 1]. Without a positive, or without a
        negative, it is 0 and its gradient is all zeros.

    Raises:
        ValueError: an unknown ``step``, ``delta`` or ``k`` not above 0, or shapes that differ.
        FloatingPointError: logits that are NaN or infinite.
    """

    def criterion(rank_pos: Tensor, rank_neg: Tensor, num_neg: int) -> tuple[Tensor, Tensor]:
        share = 1 / max(num_neg, 1)
        return share * rank_neg, torch.full_like(rank_neg, share)

    step = build_step(step, delta=delta, k=k)
    return ranking_loss(logits, targets, criterion, step=step, group=group)
