"""Chooses the backend that bins scores."""

from torch import Tensor

from apdet.losses.ranking.binning import numba_backend
from apdet.losses.ranking.binning.binned_scores import BinnedScores
from apdet.losses.ranking.binning.compiled import CompiledScores
from apdet.losses.ranking.binning.grid import SAMPLE_STEP, Grid
from apdet.losses.ranking.binning.gridded import GriddedScores
from apdet.losses.ranking.binning.search import SearchedScores

# With fewer scores, building a grid takes longer than it saves.
MIN_SCORES_FOR_GRID = 1 << 15
# A score in a cell with an edge still needs a search. If more than this share of the scores lies in
# such cells, a grid is slower than a search for every score.
MAX_SHARE_BESIDE_EDGE = 1 / 4


def bin_scores(scores: Tensor, edges: Tensor) -> BinnedScores:
    """Bin scores with the backend that should be fastest.

    Args:
        scores: (N,) float, finite.
        edges: (E,) float64, ascending, on the same device. E may be 0.
    """
    on_cpu = edges.device.type == "cpu"
    if not on_cpu or len(edges) == 0 or len(scores) < MIN_SCORES_FOR_GRID:
        return SearchedScores(scores, edges)
    compiled = numba_backend.is_available()
    grid = Grid.over(edges, cells_per_edge=8 if compiled else 32)
    if len(scores) and grid.share_beside_edge(scores[::SAMPLE_STEP]) > MAX_SHARE_BESIDE_EDGE:
        return SearchedScores(scores, edges)
    return CompiledScores(scores, grid) if compiled else GriddedScores(scores, grid)
