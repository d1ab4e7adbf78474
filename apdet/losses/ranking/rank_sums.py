"""The two sums that every ranking loss is made of, exact and without a loop over positives.

With positive scores t_1 <= ... <= t_P, other scores s_j, and a step H such as the AP-loss paper's
(arXiv:2008.07294, Eq. 21: a ramp from 0 at -delta to 1 at delta),

    rank sums    R_i = sum_j H(s_j - t_i)                     for every positive i
    blame sums   g_j = sum_i w_i H(s_j - t_i)                 for every score j

H is linear between its M knots x_m, so the P M corners t_i + x_m cut the line of scores into bins
inside which each sum is linear in the score. A bin needs but two numbers: how many scores it holds
and how far, in sum, they lie above its start. Both sums thus take O((P + N) log P) time; nothing
of size P x N exists. This file is what is done with the bins; `.binning` has the two passes over
the scores.
"""

import torch
from torch import Tensor

from apdet.losses.ranking.binning.backend import bin_scores
from apdet.losses.ranking.steps import Step


class Windows:
    """The windows of the positives, from the first to the last knot around each score.

    Attributes:
        edges: (E,) float64, ascending: all corners t_i + x_m. E = P M. They bound bins 0 to E; the
            scores of bin 0 lie below all of them, those of bin b at or above ``edges[b - 1]``.
    """

    def __init__(self, pos: Tensor, step: Step):
        """Lay them out.

        Args:
            pos: (P,) float64. Scores of the positives, in any order; P may be 0.
            step: the step that is counted with.
        """
        corners = pos[:, None] + pos.new_tensor(step.knots)  # (P, M)
        self.edges, self._order = corners.flatten().sort()
        self._width = corners.diff(dim=1)  # (P, M - 1); 0 where t_i is too large to tell
        self._rise = pos.new_tensor(step.values).diff()  # (M - 1,) of H from knot to knot
        opened = torch.zeros_like(corners)
        opened[:, 0], opened[:, -1] = 1, -1
        self._num_open = _cumsum(opened.flatten()[self._order])  # (E,) windows over bins 1 to E

    def rank_sums(self, histogram: Tensor) -> Tensor:
        """How many scores stand above each positive, counted with the step.

        Args:
            histogram: (2, E + 1) float64. Of each bin the number of its scores, and the sum of
                their distances from its start; that of the first and last bin does not matter.

        Returns:
            (P,) float64. R_i >= 0.
        """
        count, offset = histogram[:, 1:]  # (E,) each
        # Between two knots H rises linearly, so a score adds its rise times the share of the way
        # that lies below the score. Summed over scores that is the mean, over the way, of how many
        # scores lie above; integrated from the top down all terms are non-negative.
        above = _reversed_cumsum(count)
        integral = torch.zeros_like(offset)
        integral[:-1] = offset[:-1] + above[1:] * self.edges.diff()
        above, integral = self._at_corners(above), self._at_corners(_reversed_cumsum(integral))
        mean = torch.where(
            self._width > 0, -integral.diff(dim=1) / self._width, above[:, :-1]
        )  # (P, M - 1)
        return (mean * self._rise).sum(1).clamp(min=0)

    def blame_lines(self, weights: Tensor) -> Tensor:
        """The blame sums as a function of the score: in each bin a line.

        Args:
            weights: (P,) float64. w_i >= 0 of each positive.

        Returns:
            (2, E + 1) float64. The blame at the start of each bin, and its slope there.
        """
        rise = weights[:, None] * self._rise  # (P, M - 1)
        slope = torch.where(self._width > 0, rise / self._width, 0)
        jump = torch.where(self._width > 0, 0, rise)
        change = torch.nn.functional.pad(slope, (1, 1)).diff(dim=1)  # (P, M)
        slope = _cumsum(change.flatten()[self._order]).clamp(min=0)
        # Outside all windows the slope is 0, not what rounding left: it meets long distances.
        slope = torch.where(self._num_open > 0, slope, 0)
        value = _cumsum(torch.nn.functional.pad(jump, (0, 1)).flatten()[self._order])
        value[1:] += _cumsum(slope[:-1] * self.edges.diff())
        return torch.nn.functional.pad(torch.stack([value, slope]), (1, 0))

    def _at_corners(self, at_edges: Tensor) -> Tensor:
        by_corner = torch.empty_like(at_edges).scatter_(0, self._order, at_edges)
        return by_corner.view(-1, len(self._rise) + 1)  # (P, M)


def rank_sums(pos: Tensor, scores: Tensor, step: Step) -> Tensor:
    """How many ``scores`` stand above each positive, counted with the step.

    Args:
        pos: (P,) float64. Scores of the positives, in any order; P may be 0.
        scores: (N,) float, finite. The scores to be counted; N may be 0.
        step: the step that is counted with.

    Returns:
        (P,) float64. R_i, from 0 to N.
    """
    windows = Windows(pos, step)
    return windows.rank_sums(bin_scores(scores, windows.edges).histogram())


def blame_sums(pos: Tensor, weights: Tensor, scores: Tensor, step: Step) -> Tensor:
    """The weighted count of positives that each score stands above.

    Args:
        pos: (P,) float64. Scores of the positives; P may be 0.
        weights: (P,) float64. w_i >= 0 of each.
        scores: (N,) float, finite.
        step: the step that is counted with.

    Returns:
        (N,) g_j, from 0 to the sum of the weights, in the dtype of ``scores`` but at least float32.
    """
    windows = Windows(pos, step)
    out = torch.empty_like(scores, dtype=torch.promote_types(scores.dtype, torch.float32))
    return bin_scores(scores, windows.edges).evaluate(windows.blame_lines(weights), out)


def _reversed_cumsum(x: Tensor) -> Tensor:
    return _cumsum(x.flip(0)).flip(0)


def _cumsum(x: Tensor) -> Tensor:
    # Not every torch can add up floats on CUDA in the same order twice.
    if x.device.type == "cuda" and torch.are_deterministic_algorithms_enabled():
        return x.cpu().cumsum(0).to(x.device)
    return x.cumsum(0)
