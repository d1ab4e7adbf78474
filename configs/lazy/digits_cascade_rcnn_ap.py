"""Cascade R-CNN on digits, with a ranking in the RPN and in each of the three stages."""

from copy import deepcopy

from detectron2.config import LazyCall as L
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher

from apdet.modeling import ClsLoss, OverlapMatcher, RankingCascadeROIHeads, RankingRPN

from .digits_faster_rcnn_ap import (  # noqa: F401  these parts stay the same
    dataloader,
    datasets,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.proposal_generator.update(
    _target_=RankingRPN,
    cls_loss=L(ClsLoss)(loss="ap_loss", num_classes=1),
    anchor_matcher=L(OverlapMatcher)(
        thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True
    ),
)

_heads = model.roi_heads
_head, _predictor = _heads.pop("box_head"), _heads.pop("box_predictor")
del _heads["proposal_matcher"]


def _stage(weight):
    predictor = deepcopy(_predictor)
    predictor.cls_loss.num_classes = "${....num_classes}"  # one level deeper, in a list
    predictor.cls_agnostic_bbox_reg = True
    weights = [10.0 * weight, 10.0 * weight, 5.0 * weight, 5.0 * weight]
    predictor.box2box_transform = L(Box2BoxTransform)(weights=weights)
    return predictor


_heads.update(
    _target_=RankingCascadeROIHeads,
    box_heads=[_head] * 3,
    box_predictors=[_stage(weight) for weight in (1.0, 2.0, 3.0)],
    proposal_matchers=[
        L(Matcher)(thresholds=[iou], labels=[0, 1], allow_low_quality_matches=False)
        for iou in (0.5, 0.6, 0.7)
    ],
)

train.output_dir = "output/lazy/digits_cascade_rcnn_ap"
