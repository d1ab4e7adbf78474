"""The classes and functions that the text of a model may call. None of them runs other code."""

from collections.abc import Callable
from typing import Any

from detectron2.data import transforms
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import fpn, resnet
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformLinear
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import fcos, rcnn, retinanet
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import rpn
from detectron2.modeling.roi_heads import (
    box_head,
    cascade_rcnn,
    fast_rcnn,
    keypoint_head,
    mask_head,
    roi_heads,
)

from apdet.data.mapper import BoxMapper
from apdet.modeling import (
    cls_loss,
    matcher,
    ranking_fcos,
    ranking_retinanet,
    ranking_rpn,
    retinanet_head,
    ssd,
)
from apdet.modeling import roi_heads as ranking_roi_heads
from apdet.modeling.backbones import vgg

_CALLS: tuple[Callable[..., Any], ...] = (
    BoxMapper,
    cls_loss.ClsLoss,
    matcher.OverlapMatcher,
    ranking_fcos.RankingFCOS,
    ranking_retinanet.RankingRetinaNet,
    ranking_roi_heads.RankingCascadeROIHeads,
    ranking_roi_heads.RankingOutputLayers,
    ranking_roi_heads.RankingROIHeads,
    ranking_rpn.RankingRPN,
    retinanet_head.RankingRetinaNetHead,
    ssd.DefaultBoxGenerator,
    ssd.SSD,
    ssd.SSDHead,
    vgg.SSDVGG16,
    transforms.Resize,
    transforms.ResizeShortestEdge,
    ShapeSpec,
    DefaultAnchorGenerator,
    Box2BoxTransform,
    Box2BoxTransformLinear,
    Matcher,
    ROIPooler,
    fpn.FPN,
    fpn.LastLevelMaxPool,
    fpn.LastLevelP6P7,
    resnet.BasicBlock,
    resnet.BasicStem,
    resnet.BottleneckBlock,
    resnet.ResNet,
    resnet.ResNet.make_default_stages,
    resnet.ResNet.make_stage,
    fcos.FCOS,
    fcos.FCOSHead,
    rcnn.GeneralizedRCNN,
    retinanet.RetinaNet,
    retinanet.RetinaNetHead,
    rpn.RPN,
    rpn.StandardRPNHead,
    box_head.FastRCNNConvFCHead,
    cascade_rcnn.CascadeROIHeads,
    fast_rcnn.FastRCNNOutputLayers,
    keypoint_head.KRCNNConvDeconvUpsampleHead,
    mask_head.MaskRCNNConvUpsampleHead,
    roi_heads.StandardROIHeads,
)
# Names as "detectron2.FPN", without modules, which may move in a later version.
NAMES = {call: f"{call.__module__.split('.')[0]}.{call.__qualname__}" for call in _CALLS}
TRUSTED = {name: call for call, name in NAMES.items()}
