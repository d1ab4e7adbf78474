"""The two sums that every ranking loss is made of, exact and without a loop over positives.

With positive scores t_1 <= ... <= t_P, other scores s_j, and the piecewise step of half-width delta

    H(x) = clamp(x / (2 delta) + 1/2, 0, 1)                   (arXiv:2008.07294, Eq. 21)

    rank sums    R_i = sum_j H(s_j - t_i)                     for every positive i
    blame sums   g_j = sum_i w_i H(s_j - t_i)                 for every score j

H is linear between its two corners, so the 2P corners t_i - delta and t_i + delta cut the line of
scores into bins inside which each sum is linear in the score. A bin needs but two numbers:
how many scores it holds and how far, in sum, they lie above its start. Both sums thus take
O((P + N) log P) time; nothing of size P x N exists.
"""

import torch
from torch import Tensor

# Scores widened to float64 at a time; bounds the extra memory whatever their number.
CHUNK = 1 << 20


def rank_sums(pos: Tensor, scores: Tensor, delta: float) -> Tensor:
    """How many ``scores`` stand above each positive, counted with the piecewise step.

    Args:
        pos: (P,) float64. Scores of the positives, P > 0, in any order.
        scores: (N,) float, finite. The scores to be counted; N may be 0.
        delta: half-width of the step, > 0.

    Returns:
        (P,) float64. R_i, from 0 to N.
    """
    corners, order = torch.cat([pos - delta, pos + delta]).sort()  # (2P,)
    num_bins = len(corners) + 1  # bin 0 lies below all corners: its scores count nowhere
    count, offset = corners.new_zeros(num_bins), corners.new_zeros(num_bins)
    for chunk in scores.split(CHUNK):
        chunk = chunk.to(corners.dtype)
        bins = torch.bucketize(chunk, corners, right=True)
        above_start = chunk - corners[(bins - 1).clamp(min=0)]
        count += torch.bincount(bins, minlength=num_bins)
        offset += torch.bincount(bins, weights=above_start, minlength=num_bins)

    # 2 delta R_i is the integral, over the window of positive i, of the number of scores above v.
    # Integrated from the top down, corner by corner, all terms are non-negative.
    beyond = _reversed_cumsum(count)[2:]  # (2P - 1,) scores above the end of each bin
    integral = offset[1:].clone()
    integral[:-1] += beyond * corners.diff()
    integral = torch.empty_like(integral).scatter_(0, order, _reversed_cumsum(integral))
    window_start, window_end = integral.chunk(2)
    return ((window_start - window_end) / (2 * delta)).clamp(min=0)


def blame_sums(pos: Tensor, weights: Tensor, scores: Tensor, delta: float) -> Tensor:
    """The weighted count of positives that each score stands above.

    Args:
        pos: (P,) float64. Scores of the positives, P > 0.
        weights: (P,) float64. w_i >= 0 of each.
        scores: (N,) float, finite.
        delta: half-width of the step, > 0.

    Returns:
        (N,) g_j, from 0 to the sum of the weights, in the dtype of ``scores`` but at least float32.
    """
    corners, order = torch.cat([pos - delta, pos + delta]).sort()  # (2P,)
    slope = (torch.cat([weights, -weights])[order] / (2 * delta)).cumsum(0)
    # Outside all windows the slope is 0, not what rounding left of it: it meets long distances.
    signs = torch.ones_like(order).masked_fill_(order >= len(pos), -1)
    slope = slope.masked_fill(signs.cumsum(0) == 0, 0).clamp(min=0)
    value = torch.zeros_like(slope)  # g at each corner
    value[1:] = (slope[:-1] * corners.diff()).cumsum(0)

    # A bin 0 below all corners, where g is 0.
    zero = slope.new_zeros(1)
    slope, value = torch.cat([zero, slope]), torch.cat([zero, value])
    start = torch.cat([corners[:1], corners])
    dtype = torch.promote_types(scores.dtype, torch.float32)
    blame = torch.empty(scores.shape, dtype=dtype, device=scores.device)
    for chunk, out in zip(scores.split(CHUNK), blame.split(CHUNK), strict=True):
        chunk = chunk.to(corners.dtype)
        bins = torch.bucketize(chunk, corners, right=True)
        out.copy_(value[bins] + (chunk - start[bins]) * slope[bins])
    return blame


def _reversed_cumsum(x: Tensor) -> Tensor:
    return x.flip(0).cumsum(0).flip(0)
