"""Which way the passes of :mod:`apdet.losses.ranking.binning.searched` are done.

There are three, with the same results but for rounding in float64:

* `binning.Searched`, a binary search for each score, on any device;
* `grid.Gridded`, a table over a uniform grid of cells, on the CPU;
* `compiled.Compiled`, the same in compiled code, where numba is installed (the extra
  ``apdet[fast]``). The environment variable ``APDET_NATIVE=0`` switches it off.
"""

from torch import Tensor

from apdet.losses.ranking.binning import numba_backend as native
from apdet.losses.ranking.binning.compiled import Compiled
from apdet.losses.ranking.binning.grid import SAMPLE, Grid, Gridded
from apdet.losses.ranking.binning.searched import BinnedScores, Searched

# A grid does not pay for fewer scores,
SMALL = 1 << 15
# nor if more than this share of them lies in a cell with an edge and has to be searched for anyway.
MANY = 1 / 4


def bin_scores(scores: Tensor, edges: Tensor) -> BinnedScores:
    """Bin scores in the way that is fastest where they are.

    Args:
        scores: (N,) float, finite.
        edges: (E,) float64, ascending, on the same device; E may be 0.
    """
    if edges.device.type != "cpu" or len(edges) == 0 or len(scores) < SMALL:
        return Searched(scores, edges)
    way, cells_per_edge = (Compiled, 8) if native.is_available() else (Gridded, 32)
    grid = Grid.over(edges, cells_per_edge)
    if len(scores) and grid.share_beside_edge(scores[::SAMPLE]) > MANY:
        return Searched(scores, edges)
    return way(scores, grid)
