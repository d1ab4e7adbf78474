"""Detectors for Detectron2 that are trained with the losses of :mod:`apdet.losses`.

Importing this package registers them. It exports the classification loss, the meta-architectures
and their parts, for use in Python configs and in your own detectors.
"""

try:
    import detectron2  # noqa: F401
except ImportError as error:
    raise ImportError(
        "apdet.modeling needs Detectron2, which has no official release on the package index. "
        "Call `bash tools/setup_env.sh` or `pip install ./third_party/detectron2` in a checkout of "
        "apdet, or, with torch installed, pip install --no-build-isolation "
        "'git+https://github.com/facebookresearch/detectron2@a59f0563'"
    ) from error

from apdet.modeling.backbones.vgg import SSDVGG16
from apdet.modeling.cls_loss import ClsLoss
from apdet.modeling.contract import AnchorMatches, ClassLayer, Detector
from apdet.modeling.dense import RankingDenseDetector
from apdet.modeling.matcher import OverlapMatcher
from apdet.modeling.ranking_fcos import RankingFCOS
from apdet.modeling.ranking_retinanet import RankingRetinaNet
from apdet.modeling.ranking_rpn import RankingRPN
from apdet.modeling.retinanet_head import RankingRetinaNetHead
from apdet.modeling.roi_heads import (
    RankingCascadeROIHeads,
    RankingOutputLayers,
    RankingROIHeads,
)
from apdet.modeling.ssd import SSD, DefaultBoxGenerator, SSDHead

__all__ = [
    "SSD",
    "SSDVGG16",
    "AnchorMatches",
    "ClassLayer",
    "ClsLoss",
    "DefaultBoxGenerator",
    "Detector",
    "OverlapMatcher",
    "RankingCascadeROIHeads",
    "RankingDenseDetector",
    "RankingFCOS",
    "RankingOutputLayers",
    "RankingROIHeads",
    "RankingRPN",
    "RankingRetinaNet",
    "RankingRetinaNetHead",
    "SSDHead",
]
