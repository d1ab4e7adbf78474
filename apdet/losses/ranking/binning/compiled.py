"""The backend of `BinnedScores` with a table over a grid, in code that numba compiles."""

import threading
from collections.abc import Callable

import torch
from torch import Tensor

from apdet.losses.ranking.binning import numba_backend
from apdet.losses.ranking.binning.grid import Grid
from apdet.losses.ranking.binning.gridded import GriddedScores

# Minimum number of scores per thread.
MIN_PART = 1 << 17
# Some of numba's thread pools must not be used by two threads at the same time.
_ONE_AT_A_TIME = threading.Lock()


class CompiledScores:
    """Finds the bin of each score on a grid, in compiled code, on as many threads as torch."""

    def __init__(self, scores: Tensor, grid: Grid):
        # numba does not support bfloat16, nor float16 on the CPU.
        self.scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).contiguous()
        self.grid = grid
        # The scores that the first pass searched for, as the kernels' found_index, found_bin and
        # num_found.
        self._found: tuple[Tensor, Tensor, Tensor] | None = None

    def histogram(self) -> Tensor:
        kernels = numba_backend.kernels()
        grid, size = self.grid, len(self.scores)
        num_parts = max(1, min(torch.get_num_threads(), size // MIN_PART))
        cells = torch.zeros(num_parts, grid.last + kernels.SPREAD, 2, dtype=torch.float64)
        bins = torch.zeros(num_parts, len(grid.edges) + 1, 2, dtype=torch.float64)
        index, found_bin = torch.empty(2, num_parts, size // (4 * num_parts), dtype=torch.int32)
        num_found = torch.zeros(num_parts, dtype=torch.int64)
        self._found = (index, found_bin, num_found)
        self._call(kernels.count, cells, bins, *self._found)
        # The first SPREAD rows hold the scores below all edges, which have no effect. The last of
        # these rows stands for cell 0.
        return bins.sum(0).T + grid.to_bins(cells.sum(0)[kernels.SPREAD - 1 :])

    def evaluate(self, lines: Tensor, out: Tensor) -> Tensor:
        if self._found is None:
            self.histogram()
        assert self._found is not None
        index, _, num_found = self._found
        if (num_found > index.shape[1]).any():  # the arrays were too short for all of them
            return GriddedScores(self.scores, self.grid).evaluate(lines, out)
        result = out.to(torch.promote_types(out.dtype, torch.float32))
        cell_lines = self.grid.to_cells(lines, result.dtype)
        kernel = numba_backend.kernels().evaluate
        self._call(kernel, cell_lines, lines.T.contiguous(), *self._found, result)
        return out if result is out else out.copy_(result)

    def _call(self, kernel: Callable[..., None], *tensors: Tensor) -> None:
        grid = self.grid
        arrays = numba_backend.kernels().GridArrays(
            grid.edges.numpy(),
            grid.bins.numpy(),
            grid.has_edge.numpy(),
            grid.origin,
            grid.scale,
            float(grid.last),
        )
        with _ONE_AT_A_TIME, numba_backend.threads_of_torch():
            kernel(self.scores.numpy(), arrays, *(x.numpy() for x in tensors))
