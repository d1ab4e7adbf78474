"""The passes of :mod:`.searched` by a table over a uniform grid, on the CPU."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from apdet.losses.ranking.binning.searched import (
    CPU_CHUNK,
    add_to_histogram,
    find,
    line_at,
    start_of_bins,
)
from apdet.losses.ranking.nonzero import nonzero

# One score in so many is looked at to see how many count; up to this share of them are few.
SAMPLE = 61
FEW = 1 / 16


class Grid(NamedTuple):
    """Uniform cells over the edges. Cell 0 lies below all edges, the last one above all.

    A cell without an edge lies within one bin, so that its scores need no search. The cell of a
    score is computed as that of an edge is, and the formula never falls where its argument rises:
    a score in a cell without an edge is therefore on the right side of all edges, however rounding
    turns out.

    Attributes:
        edges: (E,) float64, ascending.
        origin: where cell 0 would start, were it as wide as the others.
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
    def over(cls, edges: Tensor, cells_per_edge: int) -> "Grid":
        """Lay a grid over ``edges`` (E,), E > 0, on the CPU.

        The more cells, the fewer scores have to be searched for, and the more often a table of them
        is not in the cache; beyond limits that loses more than it gains.
        """
        bits = min(max((cells_per_edge * len(edges) - 1).bit_length(), 14), 17)
        if len(edges) > 1 << 16:  # the sigmoid's
            bits = min((8 * len(edges) - 1).bit_length(), 20)
        num_cells = 1 << bits
        low, high = edges[0].item(), edges[-1].item()
        # The outer edges lie in the middle of cells, so that rounding keeps them off cell 0 and the
        # last one, which most scores may be in.
        scale = (num_cells - 1) / (high - low) if high > low else 1.0
        grid = cls(edges, low - 1.5 / scale, scale, num_cells + 1, *[edges] * 3)
        in_cell = torch.bincount(grid.position(edges).long(), minlength=num_cells + 2)
        bins = in_cell.cumsum(0) - in_cell
        start = grid.origin + torch.arange(num_cells + 2, dtype=torch.float64) / scale
        start = (start - start_of_bins(edges)[bins]).clamp(min=0)
        return grid._replace(bins=bins, has_edge=in_cell > 0, start=start)

    def position(self, scores: Tensor, out: Tensor | None = None) -> Tensor:
        """The cell numbers, with their fractions, of ``scores`` (n,) float; float64."""
        position = torch.empty_like(scores, dtype=torch.float64) if out is None else out
        return position.copy_(scores).sub_(self.origin).mul_(self.scale).clamp_(0, self.last)

    def share_beside_edge(self, scores: Tensor) -> float:
        """The share of ``scores`` (n,), n > 0, that would have to be searched for."""
        return self.has_edge[self.position(scores).long()].double().mean().item()

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


class Gridded:
    """Finds the bin of each score on a grid; searches only in cells that hold an edge."""

    def __init__(self, scores: Tensor, grid: Grid):
        self.scores, self.grid = scores, grid
        # Scores in bin 0 count nowhere. Where, by a sample, few others are, they are all searched
        # for, as late in a training; either way is exact.
        self._floor = below(grid.edges[0].item(), scores.dtype)
        self._few_count = (scores[::SAMPLE] > self._floor).double().mean().item() < FEW
        # What the first pass searched for: indices and bins.
        self._found: tuple[Tensor, Tensor] | None = None

    def histogram(self) -> Tensor:
        grid = self.grid
        cells = torch.zeros(grid.last + 1, dtype=torch.complex128)
        if self._few_count:
            index = nonzero(self.scores > self._floor)
        else:
            index = self._count_in_cells(cells)
        scores = self.scores[index].double()
        bins = find(grid.edges, scores)
        self._found = (index, bins)
        histogram = grid.to_bins(torch.view_as_real(cells))
        add_to_histogram(histogram, grid.edges, bins, scores)
        return histogram

    def evaluate(self, lines: Tensor, out: Tensor) -> Tensor:
        if self._found is None:
            self.histogram()
        index, bins = self._found
        if self._few_count:
            out.zero_()
        else:
            self._evaluate_in_cells(lines, out)
        scores = self.scores[index].double()
        out[index] = line_at(lines, self.grid.edges, bins, scores).to(out.dtype)
        return out

    def _count_in_cells(self, cells: Tensor) -> Tensor:
        """Add count + offset j to each of ``cells`` (C,); the indices of scores beside an edge."""
        # Count and offset as one complex number are added in one go.
        added = torch.ones(CPU_CHUNK, 2, dtype=torch.float64)
        beside_edge = torch.empty(CPU_CHUNK, dtype=torch.bool)
        indices = [torch.empty(0, dtype=torch.int64)]
        for chunk, position, cell in self._chunks():
            size = len(cell)
            torch.frac(position, out=added[:size, 1])
            cells.scatter_add_(0, cell, torch.view_as_complex(added[:size]))
            torch.index_select(self.grid.has_edge, 0, cell, out=beside_edge[:size])
            indices.append(nonzero(beside_edge[:size]) + chunk.start)
        return torch.cat(indices)

    def _evaluate_in_cells(self, lines: Tensor, out: Tensor) -> None:
        dtype = torch.promote_types(out.dtype, torch.float32)
        # Value and slope as one complex number are looked up in one go.
        cells = torch.view_as_complex(self.grid.to_cells(lines, dtype))
        found = torch.empty(CPU_CHUNK, dtype=cells.dtype)
        for chunk, position, cell in self._chunks():
            line = torch.index_select(cells, 0, cell, out=found[: len(cell)])
            value, slope = torch.view_as_real(line).unbind(1)
            torch.addcmul(value, slope, position.frac_().to(dtype), out=out[chunk])

    def _chunks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Chunks of the scores: where, their positions and their cells; both are reused."""
        positions = torch.empty(CPU_CHUNK, dtype=torch.float64)
        cells = torch.empty(CPU_CHUNK, dtype=torch.int64)
        for begin in range(0, len(self.scores), CPU_CHUNK):
            scores = self.scores[begin : begin + CPU_CHUNK]
            position = self.grid.position(scores, out=positions[: len(scores)])
            yield slice(begin, begin + len(scores)), position, cells[: len(scores)].copy_(position)


def below(score: float, dtype: torch.dtype) -> float:
    """A bound below ``score``, even after a comparison rounds it to ``dtype``."""
    return score - abs(score) * torch.finfo(dtype).eps - torch.finfo(dtype).tiny
