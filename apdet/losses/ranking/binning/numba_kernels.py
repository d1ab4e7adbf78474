"""The inner loops of :mod:`apdet.losses.ranking.binning.compiled`; importing this file needs numba.

Each loop is simple enough for the compiler to vectorise it, or has no branch that a processor would
guess wrongly: scores go in blocks from one to the next.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, prange

BLOCK = 512
# Scores below all edges are often most of them. Spread over so many rows, additions to the same row
# do not have to wait for each other.
SPREAD = 16


class GridArrays(NamedTuple):
    """The fields of a `Grid`, for numba."""

    edges: np.ndarray
    bins: np.ndarray
    has_edge: np.ndarray
    origin: float
    scale: float
    last: float


_compile = njit(error_model="numpy", cache=True)
_compile_parallel = njit(parallel=True, error_model="numpy", cache=True)


@_compile
def _place(scores, grid, cells, fractions):
    """Cell and position in it of each score, as `Grid.position` has them."""
    for k in range(len(scores)):
        position = (np.float64(scores[k]) - grid.origin) * grid.scale
        position = min(max(position, 0.0), grid.last)
        cell = np.int32(position)
        fractions[k] = position - cell
        cells[k] = cell


@_compile
def _add(cells, fractions, table):
    for k in range(len(cells)):
        cell = cells[k]
        row = cell + np.uint32(SPREAD - 1) if cell > 0 else np.uint32(k % SPREAD)
        table[row, 0] += 1.0
        table[row, 1] += fractions[k]


@_compile
def _interpolate(cells, fractions, table, out):
    for k in range(len(cells)):
        cell = cells[k]
        out[k] = table[cell, 0] + fractions[k] * table[cell, 1]


@_compile
def _in_cells_with_edge(cells, has_edge, found):
    """Write the indices of scores whose cell has an edge to ``found``; returns how many."""
    size = 0
    for k in range(len(cells)):
        found[size] = k
        size += has_edge[cells[k]]
    return size


@_compile
def _search(score, grid, cell):
    """The bin of a score, whose cell says between which edges to look."""
    low, high = grid.bins[cell], grid.bins[cell + np.uint32(1)]
    while low < high:
        middle = (low + high) >> 1
        if grid.edges[middle] <= score:
            low = middle + 1
        else:
            high = middle
    return low


@_compile
def _count(scores, grid, table, histogram, found_index, found_bin):
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
def count(scores, grid, tables, histograms, found_index, found_bin, num_found):
    """Add scores to tables over cells, or where their cell has an edge, to histograms over bins.

    Args:
        scores: (N,) float32 or float64, the work of T threads, a part each.
        grid: its edges are (E,), its cells are C.
        tables: (T, C + SPREAD - 1, 2) float64. Count and summed position of each cell; the scores
            of cell 0 are spread over the first rows. Cells with an edge are to be left out of it.
        histograms: (T, E + 1, 2) float64. Count and summed distance of each bin.
        found_index: (T, F) int32, written to from the start: the first F scores of each part whose
            cell has an edge, counted from the start of the part.
        found_bin: (T, F) int32. Their bins.
        num_found: (T,) int64. How many such scores there are in each part.
    """
    num_parts, size = len(tables), len(scores)
    for p in prange(num_parts):
        part = slice(p * size // num_parts, (p + 1) * size // num_parts)
        num_found[p] = _count(
            scores[part], grid, tables[p], histograms[p], found_index[p], found_bin[p]
        )


@_compile
def _evaluate(scores, grid, cell_lines, lines, found_index, found_bin, out):
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
def evaluate(scores, grid, cell_lines, lines, found_index, found_bin, num_found, out):
    """Read a line off for each score.

    Args:
        scores: (N,) float32 or float64.
        grid: its edges are (E,), its cells are C.
        cell_lines: (C, 2) of the dtype of ``out``. Value at the start of each cell, and slope in
            units of a cell; of no meaning where the cell has an edge.
        lines: (E + 1, 2) float64. Value at the start of each bin, and slope.
        found_index: (T, F) int32, as `count` left it; and so the next two.
        found_bin: (T, F) int32.
        num_found: (T,) int64, all at most F.
        out: (N,) float32 or float64. Written to.
    """
    num_parts, size = len(num_found), len(scores)
    for p in prange(num_parts):
        part = slice(p * size // num_parts, (p + 1) * size // num_parts)
        index, bins = found_index[p, : num_found[p]], found_bin[p, : num_found[p]]
        _evaluate(scores[part], grid, cell_lines, lines, index, bins, out[part])


@_compile
def nonzero(x, found):
    """Write the indices of the entries of ``x`` (n,) int64 that are not 0; returns how many."""
    size = 0
    for k in range(len(x)):
        if x[k] != 0:
            found[size] = k
            size += 1
    return size
