"""The backend of `BinnedScores` in plain torch, with a binary search for each score."""

import torch
from torch import Tensor

# Number of scores that are converted to float64 at a time. On the CPU, a chunk must fit the cache.
CPU_CHUNK = 1 << 17
GPU_CHUNK = 1 << 22


class SearchedScores:
    """Finds the bin of each score by binary search, on any device."""

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
    """Find the bins, (n,) int64 from 0 to E, of ``scores`` (n,) float64."""
    return torch.bucketize(scores, edges, right=True)


def add_to_histogram(histogram: Tensor, edges: Tensor, bins: Tensor, scores: Tensor) -> None:
    """Add ``scores`` (n,) float64 with known ``bins`` (n,) to ``histogram`` (2, E + 1)."""
    # scatter_add_ is deterministic on the CPU. On CUDA it is so if torch's algorithms must be.
    histogram[0].scatter_add_(0, bins, torch.ones_like(scores))
    histogram[1].scatter_add_(0, bins, scores - start_of_bins(edges)[bins])


def line_at(lines: Tensor, edges: Tensor, bins: Tensor, scores: Tensor) -> Tensor:
    """Evaluate ``lines`` (2, E + 1) at ``scores`` (n,) float64 with known ``bins`` (n,)."""
    value, slope = lines
    return value[bins] + (scores - start_of_bins(edges)[bins]) * slope[bins]


def start_of_bins(edges: Tensor) -> Tensor:
    """The start of each bin, (E + 1,). Bin 0 has no start, and its entry is arbitrary."""
    return torch.cat([edges[:1], edges]) if len(edges) else edges.new_zeros(1)
