"""A uniform grid over the edges of the bins, whose cells nearly all lie within one bin."""

from typing import NamedTuple

import torch
from torch import Tensor

from apdet.losses.ranking.binning.search import start_of_bins

# A sample of the scores takes every 61st of them.
SAMPLE_STEP = 61


class Grid(NamedTuple):
    """Uniform cells over the edges. Cell 0 lies below all edges, and the last cell above all edges.

    A cell without an edge lies within one bin, so its scores need no search. Scores and edges get
    their cells by the same formula, which is monotonic even with rounding. So a score in a cell
    without an edge is always on the correct side of all edges.

    Attributes:
        edges: (E,) float64, ascending.
        origin: the score at which cell 0 would start if it were as wide as the others.
        scale: number of cells per unit of score.
        last: index of the last cell, C - 1.
        bins: (C,) int64. The number of edges before each cell. If the cell has no edge, this is the
            bin of its scores.
        has_edge: (C,) bool. Whether an edge lies in the cell.
        start: (C,) float64. The distance from the start of its bin to the start of each cell.
    """

    edges: Tensor
    origin: float
    scale: float
    last: int
    bins: Tensor
    has_edge: Tensor
    start: Tensor

    @classmethod
    def over(cls, edges: Tensor, cells_per_edge: int) -> "Grid":
        """Build a grid over ``edges`` (E,), E > 0, on the CPU.

        With more cells, fewer scores need a search, but more accesses to a table of the cells miss
        the cache. Beyond the limits below, more cells are slower.
        """
        bits = min(max((cells_per_edge * len(edges) - 1).bit_length(), 14), 17)
        if len(edges) > 1 << 16:  # as with the sigmoid step
            bits = min((8 * len(edges) - 1).bit_length(), 20)
        num_cells = 1 << bits
        low, high = edges[0].item(), edges[-1].item()
        # The outer edges lie in the middle of cells. So rounding cannot put them into cell 0 or the
        # last cell, where most scores may be.
        scale = (num_cells - 1) / (high - low) if high > low else 1.0
        grid = cls(edges, low - 1.5 / scale, scale, num_cells + 1, *[edges] * 3)
        in_cell = torch.bincount(grid.position(edges).long(), minlength=num_cells + 2)
        bins = in_cell.cumsum(0) - in_cell
        start = grid.origin + torch.arange(num_cells + 2, dtype=torch.float64) / scale
        start = (start - start_of_bins(edges)[bins]).clamp(min=0)
        return grid._replace(bins=bins, has_edge=in_cell > 0, start=start)

    def position(self, scores: Tensor, out: Tensor | None = None) -> Tensor:
        """The cells of ``scores`` (n,) float: the index and the fraction of the way, as float64."""
        position = torch.empty_like(scores, dtype=torch.float64) if out is None else out
        return position.copy_(scores).sub_(self.origin).mul_(self.scale).clamp_(0, self.last)

    def share_beside_edge(self, scores: Tensor) -> float:
        """The share of ``scores`` (n,), n > 0, that would need a search."""
        return self.has_edge[self.position(scores).long()].double().mean().item()

    def to_bins(self, cells: Tensor) -> Tensor:
        """Convert a histogram over cells, (C, 2), to a histogram over bins, (2, E + 1).

        Distances in ``cells`` are in units of a cell. Cells with an edge are left out.
        """
        count, offset = torch.where(self.has_edge[:, None], 0, cells).T
        offset = offset / self.scale + count * self.start
        histogram = cells.new_zeros(2, len(self.edges) + 1)
        histogram[0].scatter_add_(0, self.bins, count)
        histogram[1].scatter_add_(0, self.bins, offset)
        return histogram

    def to_cells(self, lines: Tensor, dtype: torch.dtype) -> Tensor:
        """Convert lines over bins, (2, E + 1), to lines over cells, (C, 2).

        Slopes of the result are per cell. The lines of cells with an edge are undefined.
        """
        value, slope = lines[:, self.bins]
        return torch.stack([value + self.start * slope, slope / self.scale], 1).to(dtype)
