"""Detectron2's matcher of anchors and ground truths, safe for a ground truth without an anchor."""

from detectron2.modeling.matcher import Matcher
from torch import Tensor


class OverlapMatcher(Matcher):
    """Gives a ground truth its best anchors as positives only if they overlap it.

    Detectron2's matcher takes every anchor that ties for the best IoU of a ground truth. One that
    overlaps no anchor has a best IoU of 0, for which all distant anchors tie: all were positive.
    """

    def set_low_quality_matches_(self, match_labels: Tensor, match_quality_matrix: Tensor) -> None:
        """Arguments as in :meth:`Matcher.set_low_quality_matches_`."""
        overlaps_any = match_quality_matrix.max(dim=1).values > 0
        super().set_low_quality_matches_(match_labels, match_quality_matrix[overlaps_any])
