"""Cross entropy with hard negative mining, the loss of SSD (arXiv:1512.02325)."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from apdet.losses.checks import check_labels
from apdet.losses.interface import declare
from apdet.losses.sampling import background_loss, sample_negatives


@declare(softmax=True, needs=("normalizer",))
def ohem_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    neg_pos_ratio: float = 3.0,
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Softmax cross entropy of the positives and of each image's hardest negatives.

    Liu et al., "SSD: Single Shot MultiBox Detector", arXiv:1512.02325, Eq. 3 and "Hard negative
    mining". The hardest negatives are the ones with the largest loss.

    Args:
        logits: (*, R, K+1) float, before the softmax, for R anchors of each image. The last class
            is the background.
        labels: (*, R) int64. -1 ignored, 0 to K-1 the class of a positive, K background.
        neg_pos_ratio: number of negatives to keep for each positive of an image. Must be > 0.
        normalizer: divisor of the sum, a number or (). None: the number of positives, at least 1.

    Returns:
        () float32 (float64 for float64 logits).

    Raises:
        ValueError: the shapes do not fit, a label is above K, or ``neg_pos_ratio`` is not above 0.
        FloatingPointError: a logit is NaN or infinite.
    """
    check_labels(logits, labels)
    background = logits.shape[-1] - 1
    dtype = torch.promote_types(logits.dtype, torch.float32)
    hardness = background_loss(logits.detach())  # (*, R)
    kept = sample_negatives(labels, hardness, background=background, neg_pos_ratio=neg_pos_ratio)
    if normalizer is None:
        normalizer = ((labels >= 0) & (labels < background)).sum().clamp(min=1)
    seen = kept >= 0
    with torch.autocast(logits.device.type, enabled=False):
        loss = F.cross_entropy(logits[seen].to(dtype), kept[seen], reduction="sum")
    return loss / normalizer
