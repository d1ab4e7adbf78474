"""GHM-C: every gradient norm counts alike, however many examples have it (arXiv:1811.05181)."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from apdet.losses.checks import check_scores


def ghm_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    bins: int = 30,
    momentum: float = 0.75,
    moving_counts: Tensor | None = None,
) -> Tensor:
    """Binary cross entropy, each entry divided by the gradient density around it.

    Li et al., "Gradient Harmonized Single-stage Detector", AAAI 2019, arXiv:1811.05181. With the
    gradient norm g_i = |sigmoid(x_i) - p_i| and M unit regions that divide [0, 1]:

        GD_i = M S_b(i)                              b(i) the region of g_i
        S_b <- momentum S_b + (1 - momentum) R_b     R_b entries are in b now
        loss = sum_i CE(x_i, p_i) / GD_i

    That is the paper's GHM-C with its unit region approximation and moving average. The authors'
    code divides by the number of regions that are not empty, where the paper divides by M; this is
    the paper. S_b starts from the first count that is not 0.

    Args:
        logits: (*) float, before the sigmoid.
        targets: (*) any dtype, of the same shape. 1 positive, 0 negative, -1 ignored.
        bins: M, the number of unit regions.
        momentum: of the moving average, in [0, 1).
        moving_counts: (M,) float, S: zeros at first, and updated in place. None: no average is
            kept, and the density is that of this batch.

    Returns:
        () float32 (float64 for float64 logits).

    Raises:
        ValueError: shapes that differ, a target above 1, ``bins`` below 1, or ``momentum`` out of
            range.
        FloatingPointError: logits that are NaN or infinite.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    if moving_counts is not None and moving_counts.shape != (bins,):
        raise ValueError(f"moving_counts {tuple(moving_counts.shape)} must be ({bins},)")
    check_scores(logits, targets)
    valid = targets >= 0
    dtype = torch.promote_types(logits.dtype, torch.float32)
    logits, targets = logits[valid].to(dtype), targets[valid].to(dtype)
    with torch.no_grad():
        norm = (logits.sigmoid() - targets).abs()
        region = (norm * bins).long().clamp(max=bins - 1)
        counts = torch.bincount(region, minlength=bins).to(dtype)
        if moving_counts is not None:
            mean = momentum * moving_counts + (1 - momentum) * counts
            counts = torch.where(moving_counts > 0, mean, counts)
            moving_counts.copy_(counts)
        density = bins * counts[region].to(dtype)
    with torch.autocast(logits.device.type, enabled=False):
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (losses / density).sum()
