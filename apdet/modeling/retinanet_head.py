"""RetinaNet's head, with as many logits as the loss wants and boxes that start small."""

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from torch import nn


class RankingRetinaNetHead(RetinaNetHead):
    """Detectron2's head: (features of each level) -> (logits, deltas) of each level."""

    @configurable
    def __init__(self, *, num_logits: int, bbox_pred_init_std: float = 0.01, **kwargs):
        """Build the head.

        Args:
            num_logits: of an anchor, see :class:`ClsLoss`.
            bbox_pred_init_std: standard deviation of the box predictor's initial weights.
            kwargs: those of :class:`RetinaNetHead`, but for ``num_classes``.
        """
        super().__init__(num_classes=num_logits, **kwargs)
        nn.init.normal_(self.bbox_pred.weight, std=bbox_pred_init_std)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict:
        """What ``cfg.MODEL.RETINANET`` says; ``num_logits`` is the caller's to give."""
        kwargs = super().from_config(cfg, input_shape)
        del kwargs["num_classes"]
        return {**kwargs, "bbox_pred_init_std": cfg.MODEL.RETINANET.BBOX_PRED_INIT_STD}
