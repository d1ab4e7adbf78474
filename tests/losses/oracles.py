"""Losses written from the papers' equations as loops in float64, to test the fast ones against."""

import torch
from torch import Tensor


def piecewise_step(x: Tensor, delta: float) -> Tensor:
    """Eq. 21 of arXiv:2008.07294, case by case."""
    ramp = x / (2 * delta) + 0.5
    return torch.where(x < -delta, 0.0, torch.where(x > delta, 1.0, ramp))


def ap_by_algorithm_1(logits, targets, delta=1.0, interpolate=True) -> tuple[Tensor, Tensor]:
    """Loss and gradient of Algorithm 1 of arXiv:2008.07294, one positive at a time."""
    s, t = logits.detach().double().flatten(), targets.flatten()
    grad = torch.zeros_like(s)
    pos, neg = (t > 0).nonzero()[:, 0], (t == 0).nonzero()[:, 0]
    if len(pos) == 0:
        return s.new_zeros(()), grad.view(logits.shape)
    max_prec, loss = 0.0, s.new_zeros(())
    for i in pos[s[pos].argsort()]:
        others = pos[pos != i]
        rank_pos = 1 + piecewise_step(s[others] - s[i], delta).sum()
        above = piecewise_step(s[neg] - s[i], delta)
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
