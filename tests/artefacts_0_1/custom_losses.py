"""Losses of a user of 0.1: the names of their arguments say what they are to be given."""

import torch
import torch.nn.functional as F  # noqa: N812

from apdet.losses.error_driven import ranking_loss
from apdet.losses.steps import build_step


def squared_hinge_loss(logits, targets, *, margin=1.0, normalizer=1.0):
    """How far each score is on the wrong side of its margin, squared."""
    signs = 2 * targets - 1
    losses = F.relu(margin - signs * logits) ** 2
    return losses[targets >= 0].sum() / normalizer


def root_rank_loss(logits, targets, *, step="piecewise", delta=1.0, k=0.5, group=None):
    """The square root of the number of negatives in front of each positive."""

    def criterion(rank_pos, rank_neg, num_neg):
        return rank_neg.sqrt(), 0.5 / rank_neg.clamp(min=1).sqrt()

    step = build_step(step, delta=delta, k=k)
    return ranking_loss(logits, targets, criterion, step=step, group=group)


def rare_scores_loss(logits, targets, *, bins=5, moving_counts=None):
    """Cross entropy, each entry divided by how many scores have been in its bin."""
    valid = targets >= 0
    logits, targets = logits[valid], targets[valid]
    scores = logits.detach().sigmoid()
    index = (scores * bins).long().clamp(max=bins - 1)
    counts = torch.bincount(index, minlength=bins).to(logits)
    if moving_counts is not None:
        moving_counts.mul_(0.5).add_(counts, alpha=0.5)
        counts = moving_counts
    losses = F.binary_cross_entropy_with_logits(logits, targets.to(logits), reduction="none")
    return (losses / counts[index].clamp(min=1)).sum()
