"""Samples the hardest or random negatives, a given number for each positive."""

import torch
from torch import Tensor


@torch.no_grad()
def sample_negatives(
    labels: Tensor, hardness: Tensor, *, background: int, neg_pos_ratio: float
) -> Tensor:
    """Keep the hardest negatives of each image, and ignore the others.

    This is the hard negative mining of SSD (arXiv:1512.02325, 2.2). With random numbers for
    ``hardness`` it is random sampling. An image without a positive keeps no negative.

    Args:
        labels: (*, R) int64, for R anchors of each image. -1 ignored, ``background`` a negative, 0
            to ``background`` - 1 a positive.
        hardness: (*, R) float. The negatives with the largest hardness are kept.
        background: the label of a negative.
        neg_pos_ratio: number of negatives to keep for each positive of an image. Must be > 0.

    Returns:
        ``labels``, with -1 for the negatives that are not kept.

    Raises:
        ValueError: ``neg_pos_ratio`` is not above 0.
    """
    if not neg_pos_ratio > 0:
        raise ValueError(f"neg_pos_ratio must be > 0, got {neg_pos_ratio}")
    negative = labels == background
    num_pos = ((labels >= 0) & ~negative).sum(-1, keepdim=True)
    num_kept = (neg_pos_ratio * num_pos).long().minimum(negative.sum(-1, keepdim=True))
    most = int(num_kept.max()) if num_kept.numel() else 0
    hardest = hardness.masked_fill(~negative, -torch.inf).topk(most, dim=-1).indices
    kept = torch.zeros_like(negative)
    kept.scatter_(-1, hardest, torch.arange(most, device=labels.device) < num_kept)
    return labels.masked_fill(negative & ~kept, -1)


def background_loss(logits: Tensor) -> Tensor:
    """Compute the cross entropy of each anchor if it is a negative, which is its hardness in SSD.

    Args:
        logits: (*, K+1) float, before the softmax. The last class is the background.

    Returns:
        (*) float32 (float64 for float64 logits).
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.logsumexp(-1) - logits[..., -1]
