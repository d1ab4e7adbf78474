"""The interface of the two passes that a ranking loss makes over all scores."""

from typing import Protocol

from torch import Tensor


class BinnedScores(Protocol):
    """Scores (N,) in bins that are bounded by ascending edges (E,).

    Bin 0 lies below all edges. Bin b > 0 starts at ``edges[b - 1]``, and includes that value.
    """

    def histogram(self) -> Tensor:
        """Count the scores of each bin.

        Returns:
            (2, E + 1) float64. For each bin, the number of its scores and the sum of their
            distances from the start of the bin. The sums of the first and the last bin are
            undefined.
        """

    def evaluate(self, lines: Tensor, out: Tensor) -> Tensor:
        """Evaluate a piecewise-linear function at each score.

        Args:
            lines: (2, E + 1) float64. For each bin, the value at its start and the slope. Both are
                0 in the first bin. The slope is 0 in the last bin.
            out: (N,) float. The values are written here.

        Returns:
            ``out``.
        """
