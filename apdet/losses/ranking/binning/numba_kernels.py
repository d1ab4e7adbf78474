"""The inner loops of :mod:`apdet.losses.ranking.binning.compiled`; importing this file needs numba.

The loops process scores in blocks, one loop after the other. Each loop is either simple enough for
the compiler to vectorise it, or has no branch that a processor would often predict wrongly.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy import ndarray

BLOCK = 512
# Most scores often lie below all edges. Their additions are spread over SPREAD rows, because
# additions to a single row would have to wait for each other.
SPREAD = 16


class GridArrays(NamedTuple):
    """The fields of a `Grid` that the kernels need."""

    edges: ndarray
    bins: ndarray
    has_edge: ndarray
    origin: float
    scale: float
    last: float


_compile = njit(error_model="numpy", cache=True)
_compile_parallel = njit(parallel=True, error_model="numpy", cache=True)


@_compile
def _place(scores: ndarray, grid: GridArrays, cells: ndarray, fractions: ndarray) -> None:
    """Write the cell of each score, and the position in it, by the formula of `Grid.position`."""
    for k in range(len(scores)):
        unbounded = (np.float64(scores[k]) - grid.origin) * grid.scale
        position = min(max(unbounded, 0.0), grid.last)
        cell = np.int32(position)
        fractions[k] = position - cell
        cells[k] = cell


@_compile
def _add(cells: ndarray, fractions: ndarray, table: ndarray) -> None:
    for k in range(len(cells)):
        cell = cells[k]
        row = cell + np.uint32(SPREAD - 1) if cell > 0 else np.uint32(k % SPREAD)
        table[row, 0] += 1.0
        table[row, 1] += fractions[k]


@_compile
def _interpolate(cells: ndarray, fractions: ndarray, table: ndarray, out: ndarray) -> None:
    for k in range(len(cells)):
        cell = cells[k]
        out[k] = table[cell, 0] + fractions[k] * table[cell, 1]


@_compile
def _in_cells_with_edge(cells: ndarray, has_edge: ndarray, found: ndarray) -> int:
    """Write the indices of scores in cells with an edge to ``found``, and return their number."""
    size = 0
    for k in range(len(cells)):
        found[size] = k
        size += has_edge[cells[k]]
    return size


@_compile
def _search(score: float, grid: GridArrays, cell: int) -> int:
    """Find the bin of a score by a binary search among the edges in its cell."""
    low, high = grid.bins[cell], grid.bins[cell + np.uint32(1)]
    while low < high:
        middle = (low + high) >> 1
        if grid.edges[middle] <= score:
            low = middle + 1
        else:
            high = middle
    return low


@_compile
def _count(
    scores: ndarray,
    grid: GridArrays,
    table: ndarray,
    histogram: ndarray,
    found_index: ndarray,
    found_bin: ndarray,
) -> int:
    cells = np.empty(BLOCK, np.uint32)
    fractions = np.empty(BLOCK, np.float64)
    found = np.empty(BLOCK + 1, np.uint32)
    num_found = 0
    for begin in range(0, len(scores), BLOCK):
        block = scores[begin : begin + BLOCK]
        size = len(block)
        _place(block, grid, cells, fractions)
        _add(cells[:size], fractions, table)
        for i in range(_in_cells_with_edge(cells[:size], grid.has_edge, found)):
            k = found[i]
            score = np.float64(block[k])
            b = _search(score, grid, cells[k])
            histogram[b, 0] += 1.0
            histogram[b, 1] += score - grid.edges[max(b - 1, 0)]
            if num_found < len(found_index):
                found_index[num_found] = begin + k
                found_bin[num_found] = b
            num_found += 1
    return num_found


@_compile_parallel
def count(
    scores: ndarray,
    grid: GridArrays,
    tables: ndarray,
    histograms: ndarray,
    found_index: ndarray,
    found_bin: ndarray,
    num_found: ndarray,
) -> None:
    """Count scores in a table over cells, and the scores in cells with an edge also in bins.

    Args:
        scores: (N,) float32 or float64. Each of T threads counts one part of them.
        grid: the grid with E edges and C cells.
        tables: (T, C + SPREAD - 1, 2) float64. For each cell, the number of scores and the sum of
            their positions in it are added. The scores of cell 0 are spread over the first SPREAD
            rows. Rows of cells with an edge are undefined.
        histograms: (T, E + 1, 2) float64. For each bin, the number of scores and the sum of their
            distances from its start are added, only for scores in cells with an edge.
        found_index: (T, F) int32. The indices, within a part, of its first F scores in cells with
            an edge are written here.
        found_bin: (T, F) int32. The bins of these scores are written here.
        num_found: (T,) int64. The number of scores in cells with an edge is written here. It may
            be above F.
    """
    num_parts, size = len(tables), len(scores)
    for p in prange(num_parts):
        part = slice(p * size // num_parts, (p + 1) * size // num_parts)
        num_found[p] = _count(
            scores[part], grid, tables[p], histograms[p], found_index[p], found_bin[p]
        )


@_compile
def _evaluate(
    scores: ndarray,
    grid: GridArrays,
    cell_lines: ndarray,
    lines: ndarray,
    found_index: ndarray,
    found_bin: ndarray,
    out: ndarray,
) -> None:
    cells = np.empty(BLOCK, np.uint32)
    fractions = np.empty(BLOCK, out.dtype)
    for begin in range(0, len(scores), BLOCK):
        block = scores[begin : begin + BLOCK]
        _place(block, grid, cells, fractions)
        _interpolate(cells[: len(block)], fractions, cell_lines, out[begin : begin + BLOCK])
    for i in range(len(found_index)):
        k, b = found_index[i], found_bin[i]
        out[k] = lines[b, 0] + (np.float64(scores[k]) - grid.edges[max(b - 1, 0)]) * lines[b, 1]


@_compile_parallel
def evaluate(
    scores: ndarray,
    grid: GridArrays,
    cell_lines: ndarray,
    lines: ndarray,
    found_index: ndarray,
    found_bin: ndarray,
    num_found: ndarray,
    out: ndarray,
) -> None:
    """Evaluate at each score the line of its bin.

    Args:
        scores: (N,) float32 or float64.
        grid: the grid with E edges and C cells.
        cell_lines: (C, 2), in the dtype of ``out``. For each cell, the value at its start and the
            slope per cell. They are not used for cells with an edge.
        lines: (E + 1, 2) float64. For each bin, the value at its start and the slope.
        found_index: (T, F) int32, as `count` wrote it.
        found_bin: (T, F) int32, as `count` wrote it.
        num_found: (T,) int64, as `count` wrote it. Must be at most F.
        out: (N,) float32 or float64. The values are written here.
    """
    num_parts, size = len(num_found), len(scores)
    for p in prange(num_parts):
        part = slice(p * size // num_parts, (p + 1) * size // num_parts)
        index, bins = found_index[p, : num_found[p]], found_bin[p, : num_found[p]]
        _evaluate(scores[part], grid, cell_lines, lines, index, bins, out[part])


@_compile
def nonzero(x: ndarray, found: ndarray) -> int:
    """Write the indices of the nonzero entries of ``x`` (n,) int64, and return their number."""
    size = 0
    for k in range(len(x)):
        if x[k] != 0:
            found[size] = k
            size += 1
    return size
