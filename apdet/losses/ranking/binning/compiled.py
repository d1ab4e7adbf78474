"""The passes of :mod:`apdet.losses.ranking.binning.searched` on a grid in compiled code."""

import threading
from collections.abc import Callable

import torch
from torch import Tensor

from apdet.losses.ranking.binning import numba_backend as native
from apdet.losses.ranking.binning.grid import Grid, Gridded

# Scores below which another thread costs more than it helps.
MIN_PART = 1 << 17
# Not all of numba's thread pools may be entered by two threads.
_ONE_AT_A_TIME = threading.Lock()


class Compiled:
    """Finds the bin of each score on a grid, in compiled code and on as many threads as torch."""

    def __init__(self, scores: Tensor, grid: Grid):
        # numba knows neither bfloat16 nor, on the CPU, float16.
        self.scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).contiguous()
        self.grid = grid
        # What the first pass had to search for: found_index, found_bin, num_found of the kernels.
        self._found: tuple[Tensor, Tensor, Tensor] | None = None

    def histogram(self) -> Tensor:
        grid, spread = self.grid, native.kernels().SPREAD
        size = len(self.scores)
        num_parts = max(1, min(torch.get_num_threads(), size // MIN_PART))
        cells = torch.zeros(num_parts, grid.last + spread, 2, dtype=torch.float64)
        bins = torch.zeros(num_parts, len(grid.edges) + 1, 2, dtype=torch.float64)
        index, found_bin = torch.empty(2, num_parts, size // (4 * num_parts), dtype=torch.int32)
        num_found = torch.zeros(num_parts, dtype=torch.int64)
        self._found = (index, found_bin, num_found)
        self._call(native.kernels().count, cells, bins, *self._found)
        # The rows before cell 1 hold the scores below all edges: any of them will do as cell 0.
        return bins.sum(0).T + grid.to_bins(cells.sum(0)[spread - 1 :])

    def evaluate(self, lines: Tensor, out: Tensor) -> Tensor:
        if self._found is None:
            self.histogram()
        index, _, num_found = self._found
        if (num_found > index.shape[1]).any():  # more than was set aside for them
            return Gridded(self.scores, self.grid).evaluate(lines, out)
        result = out.to(torch.promote_types(out.dtype, torch.float32))
        cell_lines = self.grid.to_cells(lines, result.dtype)
        self._call(
            native.kernels().evaluate, cell_lines, lines.T.contiguous(), *self._found, result
        )
        return out if result is out else out.copy_(result)

    def _call(self, kernel: Callable, *tensors: Tensor) -> None:
        grid = self.grid
        arrays = native.kernels().GridArrays(
            grid.edges.numpy(),
            grid.bins.numpy(),
            grid.has_edge.numpy(),
            grid.origin,
            grid.scale,
            float(grid.last),
        )
        with _ONE_AT_A_TIME, native.threads_of_torch():
            kernel(self.scores.numpy(), arrays, *(x.numpy() for x in tensors))
