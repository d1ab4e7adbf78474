"""The two sums of every ranking loss, computed exactly and without a loop over positives.

With positive scores t_1 <= ... <= t_P, other scores s_j, and a step H such as the ramp of the
AP-loss paper (arXiv:2008.07294, Eq. 21: from 0 at -delta to 1 at delta),

    rank sums            R_i = sum_j H(s_j - t_i)                     for every positive i
    negative gradients   g_j = sum_i w_i H(s_j - t_i)                 for every score j

H is linear between its M knots x_m. The P M corners t_i + x_m therefore divide the line of scores
into bins, and inside a bin each sum is linear in the score. Two numbers describe a bin completely:
the number of its scores, and the sum of their distances from its start. So both sums take
O((P + N) log P) time, and no tensor of size P x N is needed. This file computes with the bins;
`binning` makes the two passes over the scores.
"""

import torch
from torch import Tensor

from apdet.losses.ranking.steps import Step, tensors_of


class Windows:
    """The windows of the positives: the intervals around their scores in which H rises.

    Attributes:
        edges: (E,) float64, ascending. All corners t_i + x_m, so E = P M. They bound the bins 0 to
            E. The scores of bin 0 lie below all edges. The scores of bin b > 0 lie at or above
            ``edges[b - 1]``.
    """

    def __init__(self, pos: Tensor, step: Step):
        """Sort the corners.

        Args:
            pos: (P,) float64. Scores of the positives, in any order. P may be 0.
            step: the step H.
        """
        knots, values = tensors_of(step, pos.device)
        corners = pos[:, None] + knots  # (P, M)
        self.edges, self._order = corners.flatten().sort()
        # A width is 0 if t_i is so large that t_i + x_m rounds to the same number for two knots.
        self._width = corners.diff(dim=1)  # (P, M - 1)
        self._rise = values.diff()  # (M - 1,) the rise of H from knot to knot
        opened = torch.zeros_like(corners)
        opened[:, 0], opened[:, -1] = 1, -1
        self._num_open = _cumsum(opened.flatten()[self._order])  # (E,) windows that cover bins 1..E

    def rank_sums(self, histogram: Tensor) -> Tensor:
        """Count the scores above each positive with the step.

        Args:
            histogram: (2, E + 1) float64. For each bin, the number of its scores and the sum of
                their distances from the start of the bin. The sums of the first and the last bin
                are not used.

        Returns:
            (P,) float64. R_i >= 0.
        """
        count, offset = histogram[:, 1:]  # (E,) each
        # Between two knots H rises linearly. So a score adds the rise times the share of the
        # interval below the score. The sum over scores is the rise times the mean, over the
        # interval, of the number of scores above a point. The integral from the top down has only
        # non-negative terms, so nothing cancels.
        above = _reversed_cumsum(count)
        integral = torch.zeros_like(offset)
        integral[:-1] = offset[:-1] + above[1:] * self.edges.diff()
        above, integral = self._at_corners(above), self._at_corners(_reversed_cumsum(integral))
        mean = torch.where(
            self._width > 0, -integral.diff(dim=1) / self._width, above[:, :-1]
        )  # (P, M - 1)
        return (mean * self._rise).sum(1).clamp(min=0)

    def gradient_lines(self, weights: Tensor) -> Tensor:
        """Compute the gradient of a negative as a function of its score, a line in each bin.

        Args:
            weights: (P,) float64. w_i >= 0 of each positive.

        Returns:
            (2, E + 1) float64. For each bin, the value at its start and the slope.
        """
        rise = weights[:, None] * self._rise  # (P, M - 1)
        slope = torch.where(self._width > 0, rise / self._width, 0)
        jump = torch.where(self._width > 0, 0, rise)
        change = torch.nn.functional.pad(slope, (1, 1)).diff(dim=1)  # (P, M)
        slope = _cumsum(change.flatten()[self._order]).clamp(min=0)
        # Outside all windows the slope must be exactly 0: distances may be long there, and would
        # multiply a rounding error.
        slope = torch.where(self._num_open > 0, slope, 0)
        value = _cumsum(torch.nn.functional.pad(jump, (0, 1)).flatten()[self._order])
        value[1:] += _cumsum(slope[:-1] * self.edges.diff())
        return torch.nn.functional.pad(torch.stack([value, slope]), (1, 0))

    def _at_corners(self, at_edges: Tensor) -> Tensor:
        by_corner = torch.empty_like(at_edges).scatter_(0, self._order, at_edges)
        return by_corner.view(-1, len(self._rise) + 1)  # (P, M)


def _reversed_cumsum(x: Tensor) -> Tensor:
    return _cumsum(x.flip(0)).flip(0)


def _cumsum(x: Tensor) -> Tensor:
    # On CUDA, some versions of torch do not always add floats in the same order.
    if x.device.type == "cuda" and torch.are_deterministic_algorithms_enabled():
        return x.cpu().cumsum(0).to(x.device)
    return x.cumsum(0)
