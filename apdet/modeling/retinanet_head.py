"""RetinaNet's head with the number of logits that the loss needs."""

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from torch import nn


class RankingRetinaNetHead(RetinaNetHead):
    """Detectron2's head, which maps the features of each level to logits and deltas.

    The number of logits and the initial weights of the box predictor can be set.
    """

    @configurable
    def __init__(self, *, num_logits: int, bbox_pred_init_std: float = 0.01, **kwargs: Any):
        """Build the head.

        Args:
            num_logits: number of logits of an anchor, see :class:`ClsLoss`.
            bbox_pred_init_std: standard deviation of the box predictor's initial weights.
            kwargs: the arguments of :class:`RetinaNetHead`, except ``num_classes``.
        """
        super().__init__(num_classes=num_logits, **kwargs)
        nn.init.normal_(self.bbox_pred.weight, std=bbox_pred_init_std)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict:
        """Read ``cfg.MODEL.RETINANET``; the caller gives ``num_logits``."""
        kwargs = super().from_config(cfg, input_shape)
        del kwargs["num_classes"]
        return {**kwargs, "bbox_pred_init_std": cfg.MODEL.RETINANET.BBOX_PRED_INIT_STD}
