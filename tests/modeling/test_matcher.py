import torch
from detectron2.modeling.matcher import Matcher

from apdet.modeling.matcher import OverlapMatcher


def labels(matcher_class, iou):
    matcher = matcher_class([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True)
    return matcher(torch.tensor(iou))[1].tolist()


def test_a_ground_truth_that_overlaps_no_anchor_has_no_positives():
    iou = [[0.0, 0.0, 0.0, 0.0], [0.6, 0.45, 0.1, 0.0]]
    assert labels(OverlapMatcher, iou) == [1, -1, 0, 0]
    assert labels(Matcher, iou) == [1, 1, 1, 1]  # why the subclass is needed


def test_all_ground_truths_without_overlap_leave_background_alone():
    assert labels(OverlapMatcher, [[0.0, 0.0]]) == [0, 0]


def test_it_is_detectron2s_matcher_otherwise():
    iou = torch.rand(5, 200).square().tolist()
    assert labels(OverlapMatcher, iou) == labels(Matcher, iou)
    assert labels(OverlapMatcher, [[0.3, 0.2, 0.3]]) == [1, 0, 1]  # all that tie for the best
