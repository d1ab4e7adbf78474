"""SSD: its default boxes, its head, and the detector made of them (arXiv:1512.02325)."""

import math
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, build_anchor_generator
from detectron2.modeling.anchor_generator import ANCHOR_GENERATOR_REGISTRY, DefaultAnchorGenerator
from torch import Tensor, nn

from apdet.modeling.ranking_retinanet import RankingRetinaNet


@ANCHOR_GENERATOR_REGISTRY.register()
class DefaultBoxGenerator(DefaultAnchorGenerator):
    """Default boxes (section 2.2): each level has squares of two sizes, and wide and tall boxes.

    ``sizes`` has [s, s'] in pixels for each level: its own size and the size of the next level.
    ``aspect_ratios`` has the ratios r > 1 of each level.
    """

    def generate_cell_anchors(
        self, sizes: Sequence[float], aspect_ratios: Sequence[float]
    ) -> Tensor:
        """Make the boxes of a cell, centred at (0, 0).

        Args:
            sizes: s and s', in pixels.
            aspect_ratios: the R ratios of the level.

        Returns:
            (2 + 2 R, 4) XYXY: a square of side s, one of side sqrt(s s'), and for each ratio r a
            wide and a tall box of area s^2.
        """
        size, next_size = sizes
        sides = [(size, size), (math.sqrt(size * next_size),) * 2]
        for ratio in aspect_ratios:
            long, short = size * math.sqrt(ratio), size / math.sqrt(ratio)
            sides += [(long, short), (short, long)]
        half = torch.tensor(sides) / 2
        return torch.cat([-half, half], dim=1)


class SSDHead(nn.Module):
    """One 3 x 3 convolution per level for the logits, and one for the boxes."""

    @configurable
    def __init__(
        self,
        *,
        input_shape: list[ShapeSpec],
        num_anchors: list[int],
        num_logits: int,
        prior_prob: float = 0.01,
        bbox_pred_init_std: float = 0.01,
    ):
        """Build the head.

        Args:
            input_shape: the shape of the features of each level.
            num_anchors: the number of anchors in a cell of each level.
            num_logits: number of logits of an anchor.
            prior_prob: the sigmoid of each logit at the start of training.
            bbox_pred_init_std: standard deviation of the box predictors' initial weights.
        """
        super().__init__()
        levels = list(zip([shape.channels for shape in input_shape], num_anchors, strict=True))
        self.cls_score = nn.ModuleList(
            nn.Conv2d(c, a * num_logits, 3, padding=1) for c, a in levels
        )
        self.bbox_pred = nn.ModuleList(nn.Conv2d(c, a * 4, 3, padding=1) for c, a in levels)
        prior = -math.log((1 - prior_prob) / prior_prob)
        _initialise(self.cls_score, std=0.01, bias=prior)
        _initialise(self.bbox_pred, std=bbox_pred_init_std, bias=0.0)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict:
        """Read ``cfg.MODEL.RETINANET``; the caller gives ``num_logits``."""
        return {
            "input_shape": input_shape,
            "num_anchors": build_anchor_generator(cfg, input_shape).num_anchors,
            "prior_prob": cfg.MODEL.RETINANET.PRIOR_PROB,
            "bbox_pred_init_std": cfg.MODEL.RETINANET.BBOX_PRED_INIT_STD,
        }

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Predict classes and boxes.

        Args:
            features: (N, C_l, H_l, W_l) for each level l.

        Returns:
            Logits (N, A_l num_logits, H_l, W_l) and deltas (N, 4 A_l, H_l, W_l) for each level.
        """
        logits = [conv(x) for conv, x in zip(self.cls_score, features, strict=True)]
        deltas = [conv(x) for conv, x in zip(self.bbox_pred, features, strict=True)]
        return logits, deltas


def _initialise(layers: nn.ModuleList, *, std: float, bias: float) -> None:
    for layer in layers:
        assert isinstance(layer, nn.Conv2d)
        assert layer.bias is not None
        nn.init.normal_(layer.weight, std=std)
        nn.init.constant_(layer.bias, bias)


@META_ARCH_REGISTRY.register()
class SSD(RankingRetinaNet):
    """SSD trained with any loss of :mod:`apdet.losses`; ``ohem_loss`` is the loss of its paper.

    It is a :class:`RankingRetinaNet` with another head, and reads the same keys
    ``MODEL.RETINANET``. A config chooses its backbone (``build_ssd_vgg16_backbone``) and anchors
    (``DefaultBoxGenerator``).
    """

    @classmethod
    def build_head(cls, cfg: CfgNode, shapes: list[ShapeSpec], num_logits: int) -> nn.Module:
        """Build the head; arguments as in :meth:`RankingRetinaNet.build_head`."""
        return SSDHead(cfg, shapes, num_logits=num_logits)
