"""The two passes over all scores: a histogram over bins, and a line read off for each score.

This is the plain way, a binary search for each score. `.backend` chooses between it and faster
ones.
"""

from typing import Protocol

import torch
from torch import Tensor

# Scores that are widened to float64 at a time: on the CPU a chunk has to stay in its cache.
CPU_CHUNK = 1 << 17
GPU_CHUNK = 1 << 22


class BinnedScores(Protocol):
    """Scores (N,) and the bins between ascending edges (E,) that they fall in."""

    def histogram(self) -> Tensor:
        """Count the scores.

        Returns:
            (2, E + 1) float64. Of each bin the number of its scores, and the sum of their distances
            from its start. What the second says of the first and last bin is undefined.
        """

    def evaluate(self, lines: Tensor, out: Tensor) -> Tensor:
        """Evaluate a piecewise-linear function at each score.

        Args:
            lines: (2, E + 1) float64. Its value at the start of each bin, and its slope; both 0 in
                the first bin, the slope 0 in the last.
            out: (N,) float. Written to.

        Returns:
            ``out``.
        """


class Searched:
    """Finds the bin of each score by binary search."""

    def __init__(self, scores: Tensor, edges: Tensor):
        self.scores, self.edges = scores, edges
        self.chunk = CPU_CHUNK if edges.device.type == "cpu" else GPU_CHUNK

    def histogram(self) -> Tensor:
        histogram = self.edges.new_zeros(2, len(self.edges) + 1)
        for chunk in self.scores.split(self.chunk):
            chunk = chunk.double()
            add_to_histogram(histogram, self.edges, find(self.edges, chunk), chunk)
        return histogram

    def evaluate(self, lines: Tensor, out: Tensor) -> Tensor:
        for chunk, part in zip(self.scores.split(self.chunk), out.split(self.chunk), strict=True):
            chunk = chunk.double()
            part.copy_(line_at(lines, self.edges, find(self.edges, chunk), chunk))
        return out


def find(edges: Tensor, scores: Tensor) -> Tensor:
    """The bins, (n,) int64 from 0 to E, of ``scores`` (n,) float64."""
    return torch.bucketize(scores, edges, right=True)


def add_to_histogram(histogram: Tensor, edges: Tensor, bins: Tensor, scores: Tensor) -> None:
    """Add ``scores`` (n,) float64, of which the bins (n,) are known, to ``histogram`` (2, E + 1).

    By ``scatter_add_``, which is deterministic on the CPU and, where torch is told so, on CUDA.
    """
    histogram[0].scatter_add_(0, bins, torch.ones_like(scores))
    histogram[1].scatter_add_(0, bins, scores - start_of_bins(edges)[bins])


def line_at(lines: Tensor, edges: Tensor, bins: Tensor, scores: Tensor) -> Tensor:
    """The lines (2, E + 1) at ``scores`` (n,) float64, of which the bins (n,) are known."""
    value, slope = lines
    return value[bins] + (scores - start_of_bins(edges)[bins]) * slope[bins]


def start_of_bins(edges: Tensor) -> Tensor:
    # Bin 0 has no start; any finite number will do.
    return torch.cat([edges[:1], edges]) if len(edges) else edges.new_zeros(1)
