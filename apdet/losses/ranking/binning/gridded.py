"""The backend of `BinnedScores` in plain torch, with a table over a grid, on the CPU."""

from collections.abc import Iterator

import torch
from torch import Tensor

from apdet.losses.ranking.binning.grid import SAMPLE_STEP, Grid
from apdet.losses.ranking.binning.search import CPU_CHUNK, add_to_histogram, find, line_at
from apdet.losses.ranking.nonzero import nonzero

# If a smaller share of the scores lies above the first edge, a search is done for all of them.
FEW = 1 / 16


class GriddedScores:
    """Finds the bin of each score on a grid, and searches only in cells with an edge."""

    def __init__(self, scores: Tensor, grid: Grid):
        self.scores, self.grid = scores, grid
        # Scores in bin 0 have no effect. Late in a training few others are left, and a search for
        # each of them is faster than the table. A sample decides; both ways are exact.
        self._floor = below(grid.edges[0].item(), scores.dtype)
        self._few_count = (scores[::SAMPLE_STEP] > self._floor).double().mean().item() < FEW
        # The indices and bins of the scores that the first pass searched for.
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
        assert self._found is not None
        index, bins = self._found
        if self._few_count:
            out.zero_()
        else:
            self._evaluate_in_cells(lines, out)
        scores = self.scores[index].double()
        out[index] = line_at(lines, self.grid.edges, bins, scores).to(out.dtype)
        return out

    def _count_in_cells(self, cells: Tensor) -> Tensor:
        """Add the count and the offset of each score to its cell.

        Args:
            cells: (C,) complex128, changed in place. The count is the real part, and the offset
                in the cell is the imaginary part.

        Returns:
            (n,) int64. The indices of the scores in cells with an edge.
        """
        # A complex number needs one addition for both.
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
        # A complex number needs one look-up for value and slope.
        cells = torch.view_as_complex(self.grid.to_cells(lines, dtype))
        found = torch.empty(CPU_CHUNK, dtype=cells.dtype)
        for chunk, position, cell in self._chunks():
            line = torch.index_select(cells, 0, cell, out=found[: len(cell)])
            value, slope = torch.view_as_real(line).unbind(1)
            torch.addcmul(value, slope, position.frac_().to(dtype), out=out[chunk])

    def _chunks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield the slice, the positions and the cells of each chunk of the scores.

        The next chunk overwrites the tensors.
        """
        positions = torch.empty(CPU_CHUNK, dtype=torch.float64)
        cells = torch.empty(CPU_CHUNK, dtype=torch.int64)
        for begin in range(0, len(self.scores), CPU_CHUNK):
            scores = self.scores[begin : begin + CPU_CHUNK]
            position = self.grid.position(scores, out=positions[: len(scores)])
            yield slice(begin, begin + len(scores)), position, cells[: len(scores)].copy_(position)


def below(score: float, dtype: torch.dtype) -> float:
    """A number that stays below ``score`` even if a comparison rounds it to ``dtype``."""
    return score - abs(score) * torch.finfo(dtype).eps - torch.finfo(dtype).tiny
