"""Finds the bin of each score quickly.

The two passes over all scores, `BinnedScores`, have several backends. Their results differ only by
rounding in float64:

* `search`: a binary search for each score, in plain torch, on any device;
* `gridded`: a table over a uniform grid of cells, in plain torch, on the CPU;
* `compiled`: the same table in code that numba compiles, on the CPU (the extra ``apdet[fast]``).

`bin_scores` chooses a backend.
"""

from apdet.losses.ranking.binning.backends import bin_scores
from apdet.losses.ranking.binning.binned_scores import BinnedScores

__all__ = ["BinnedScores", "bin_scores"]
