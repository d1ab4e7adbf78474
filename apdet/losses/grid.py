"""The passes of :mod:`apdet.losses.binning` by a table over a uniform grid, on the CPU."""

from typing import NamedTuple

import torch
from torch import Tensor

from apdet.losses.binning import CPU_CHUNK, add_to_histogram, find, line_at, start_of_bins


class Grid(NamedTuple):
    """Uniform cells over the edges. Cell 0 lies below all edges, the last one above all.

    A cell without an edge lies within one bin, so that its scores need no search. The cell of a
    score is computed as that of an edge is, and the formula never falls where its argument rises:
    a score in a cell without an edge is therefore on the right side of all edges, however rounding
    turns out.

    Attributes:
        edges: (E,) float64, ascending.
        origin: where cell 1 starts.
        scale: cells per unit of score.
        last: number of the last cell, C - 1.
        bins: (C,) int64. How many edges lie in the cells before each: the bin of its scores, if
            the cell has no edge.
        has_edge: (C,) bool.
        start: (C,) float64. How far each cell starts beyond the start of its bin.
    """

    edges: Tensor
    origin: float
    scale: float
    last: int
    bins: Tensor
    has_edge: Tensor
    start: Tensor

    @classmethod
    def over(cls, edges: Tensor) -> "Grid":
        """Lay a grid over ``edges`` (E,), E > 0, on the CPU: some 16 cells an edge, within limits.

        The limits keep a table in the cache, and the searched scores few where positives are few.
        """
        num_cells = 1 << min(max((16 * len(edges) - 1).bit_length(), 15), 17)
        origin, end = edges[0].item(), edges[-1].item()
        scale = (num_cells - 0.5) / (end - origin) if end > origin else 1.0
        grid = cls(edges, origin, scale, num_cells + 1, *[edges] * 3)
        in_cell = torch.bincount(grid.position(edges).long(), minlength=num_cells + 2)
        bins = in_cell.cumsum(0) - in_cell
        start = origin + torch.arange(-1, num_cells + 1, dtype=torch.float64) / scale
        start = (start - start_of_bins(edges)[bins]).clamp(min=0)
        return grid._replace(bins=bins, has_edge=in_cell > 0, start=start)

    def position(self, scores: Tensor) -> Tensor:
        """The cell numbers, with their fractions, of ``scores`` (n,) float; float64."""
        position = scores.to(torch.float64, copy=True)
        return position.sub_(self.origin).mul_(self.scale).add_(1).clamp_(0, self.last)

    def to_bins(self, cells: Tensor) -> Tensor:
        """The histogram (2, E + 1) over bins that one over cells, (C, 2), amounts to.

        Distances in cells are in units of a cell. Cells with an edge are left out.
        """
        count, offset = torch.where(self.has_edge[:, None], 0, cells).T
        offset = offset / self.scale + count * self.start
        histogram = cells.new_zeros(2, len(self.edges) + 1)
        histogram[0].scatter_add_(0, self.bins, count)
        histogram[1].scatter_add_(0, self.bins, offset)
        return histogram

    def to_cells(self, lines: Tensor, dtype: torch.dtype) -> Tensor:
        """The lines (2, E + 1) of bins as lines (C, 2) of cells, the slope in units of a cell.

        Those of cells with an edge mean nothing.
        """
        value, slope = lines[:, self.bins]
        return torch.stack([value + self.start * slope, slope / self.scale], 1).to(dtype)


class _Found(NamedTuple):
    """Scores of a chunk that had to be searched for, and whether the others count at all."""

    index: Tensor  # (n,) within the chunk
    bins: Tensor  # (n,)
    others_count: bool


class Gridded:
    """Finds the bin of each score on a grid; searches only in cells that hold an edge."""

    def __init__(self, scores: Tensor, grid: Grid):
        self.scores, self.grid = scores, grid
        self._found: list[_Found] = []  # of each chunk, found by the first pass

    def histogram(self) -> Tensor:
        grid = self.grid
        # Count and offset of a cell as one complex number are added in one go.
        cells = torch.zeros(grid.last + 1, dtype=torch.complex128)
        added = torch.ones(CPU_CHUNK, 2, dtype=torch.float64)
        searched = grid.edges.new_zeros(2, len(grid.edges) + 1)
        self._found = []
        for chunk in self.scores.split(CPU_CHUNK):
            index = self._few_that_count(chunk)
            others_count = index is None
            if others_count:
                position = grid.position(chunk)
                cell = position.long()
                torch.frac(position, out=added[: len(chunk), 1])
                cells.scatter_add_(0, cell, torch.view_as_complex(added[: len(chunk)]))
                index = nonzero(grid.has_edge.index_select(0, cell))
            scores = chunk[index].double()
            bins = find(grid.edges, scores)
            add_to_histogram(searched, grid.edges, bins, scores)
            self._found.append(_Found(index, bins, others_count))
        return searched + grid.to_bins(torch.view_as_real(cells))

    def evaluate(self, lines: Tensor, out: Tensor) -> Tensor:
        if not self._found:
            self.histogram()
        grid = self.grid
        dtype = torch.promote_types(out.dtype, torch.float32)
        # Value and slope of a cell as one complex number are looked up in one go.
        cells = torch.view_as_complex(grid.to_cells(lines, dtype))
        chunks = zip(self.scores.split(CPU_CHUNK), out.split(CPU_CHUNK), self._found, strict=True)
        for chunk, part, found in chunks:
            if found.others_count:
                position = grid.position(chunk)
                value, slope = torch.view_as_real(cells.index_select(0, position.long())).unbind(1)
                torch.addcmul(value, slope, position.frac_().to(dtype), out=part)
            else:
                part.zero_()
            scores = chunk[found.index].double()
            part[found.index] = line_at(lines, grid.edges, found.bins, scores).to(out.dtype)
        return out

    def _few_that_count(self, chunk: Tensor) -> Tensor | None:
        """Indices of the scores above bin 0, if they are few; those in it count nowhere."""
        above = chunk > below(self.grid.origin, chunk.dtype)
        if 8 * int(above.sum()) > len(chunk):
            return None
        return nonzero(above)


def below(score: float, dtype: torch.dtype) -> float:
    """A bound below ``score``, even after a comparison rounds it to ``dtype``."""
    return score - abs(score) * torch.finfo(dtype).eps - torch.finfo(dtype).tiny


def nonzero(x: Tensor) -> Tensor:
    """Indices of the entries of ``x`` (n,) that are not 0, ascending.

    Of bytes it looks at eight at a time, since nearly all are 0.
    """
    size = len(x) // 8 * 8
    if x.element_size() != 1 or not x.is_contiguous() or x.storage_offset() % 8 or size == 0:
        return x.nonzero().squeeze(1)
    words = x[:size].view(torch.int64).nonzero()  # (w, 1)
    candidates = (8 * words + torch.arange(8, device=x.device)).flatten()
    candidates = torch.cat([candidates, torch.arange(size, len(x), device=x.device)])
    return candidates[x[candidates] != 0]
