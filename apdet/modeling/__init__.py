"""Detectron2 meta-architectures for the losses of :mod:`apdet.losses`; importing registers them."""

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
from apdet.modeling.ranking_fcos import RankingFCOS
from apdet.modeling.ranking_retinanet import RankingRetinaNet
from apdet.modeling.ranking_rpn import RankingRPN
from apdet.modeling.roi_heads import RankingCascadeROIHeads, RankingROIHeads
from apdet.modeling.ssd import SSD

__all__ = [
    "SSD",
    "SSDVGG16",
    "RankingCascadeROIHeads",
    "RankingFCOS",
    "RankingROIHeads",
    "RankingRPN",
    "RankingRetinaNet",
]
