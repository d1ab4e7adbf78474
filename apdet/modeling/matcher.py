"""Detectron2's matcher, except that a ground truth that overlaps no anchor gets no positive."""

from detectron2.modeling.matcher import Matcher
from torch import Tensor


class OverlapMatcher(Matcher):
    """Makes the best anchors of a ground truth positive only if they overlap it.

    Detectron2's matcher makes all anchors positive that share the best IoU with a ground truth. If
    a ground truth overlaps no anchor, its best IoU is 0, and all anchors share it.
    """

    def set_low_quality_matches_(self, match_labels: Tensor, match_quality_matrix: Tensor) -> None:
        """Label the best anchors; arguments as in :meth:`Matcher.set_low_quality_matches_`."""
        overlaps_any = match_quality_matrix.max(dim=1).values > 0
        super().set_low_quality_matches_(match_labels, match_quality_matrix[overlaps_any])
