"""Losses written from the papers' equations as loops in float64, to test the fast ones against."""

from collections.abc import Callable

import torch
from torch import Tensor


def piecewise_step(x: Tensor, delta: float) -> Tensor:
    """Eq. 21 of arXiv:2008.07294, case by case."""
    ramp = x / (2 * delta) + 0.5
    return torch.where(x < -delta, 0.0, torch.where(x > delta, 1.0, ramp))


def sigmoid_step(x: Tensor, k: float) -> Tensor:
    """Eq. 54 of arXiv:2008.07294."""
    return torch.sigmoid(x / k)


def ap_by_algorithm_1(
    logits, targets, delta=1.0, interpolate=True, step=None
) -> tuple[Tensor, Tensor]:
    """Loss and gradient of Algorithm 1 of arXiv:2008.07294, one positive at a time."""
    step = step or (lambda x: piecewise_step(x, delta))
    s, t = logits.detach().double().flatten(), targets.flatten()
    grad = torch.zeros_like(s)
    pos, neg = (t > 0).nonzero()[:, 0], (t == 0).nonzero()[:, 0]
    if len(pos) == 0:
        return s.new_zeros(()), grad.view(logits.shape)
    max_prec, loss = 0.0, s.new_zeros(())
    for i in pos[s[pos].argsort()]:
        others = pos[pos != i]
        rank_pos = 1 + step(s[others] - s[i]).sum()
        above = step(s[neg] - s[i])
        row = above / (rank_pos + above.sum())
        prec = rank_pos / (rank_pos + above.sum())
        if interpolate and prec < max_prec:
            row = row * (1 - max_prec) / (1 - prec)
        else:
            max_prec = prec
        grad[i] = -row.sum()
        grad[neg] += row
        loss += row.sum()
    return loss / len(pos), (grad / len(pos)).view(logits.shape)


def pairwise_loss(
    logits: Tensor, targets: Tensor, pair_loss: Callable[[Tensor, int], Tensor], delta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Mean of a function of the negatives above a positive, pushed by its derivative.

    ``pair_loss(rank_neg, num_neg)`` is (); autograd differentiates it by rank_neg, and the pair
    (i, j) gets that times H(s_j - s_i).
    """
    s, t = logits.detach().double().flatten(), targets.flatten()
    pos, neg = (t > 0).nonzero()[:, 0], (t == 0).nonzero()[:, 0]
    loss, grad = s.new_zeros(()), torch.zeros_like(s)
    for i in pos:
        above = piecewise_step(s[neg] - s[i], delta)
        rank_neg = above.sum().requires_grad_()
        value = pair_loss(rank_neg, len(neg))
        (slope,) = torch.autograd.grad(value, rank_neg)
        loss += value.detach() / len(pos)
        grad[neg] += slope * above / len(pos)
        grad[i] -= slope * above.sum() / len(pos)
    return loss, grad.view(logits.shape)
