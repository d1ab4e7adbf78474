"""The region proposal network, its objectness trained with a loss of :mod:`apdet.losses`."""

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN
from detectron2.utils.events import get_event_storage
from torch import Tensor

from apdet.errors import UserError
from apdet.modeling.cls_loss import ClsLoss
from apdet.modeling.matcher import OverlapMatcher


@PROPOSAL_GENERATOR_REGISTRY.register()
class RankingRPN(RPN):
    """Detectron2's RPN with one ranking over all anchors of a batch, none of them sampled."""

    @configurable
    def __init__(self, *, cls_loss: ClsLoss, **kwargs):
        """Build the network.

        Args:
            cls_loss: the loss of the objectness, of one class and one logit.
            kwargs: those of :class:`RPN`; ``batch_size_per_image`` only normalises the box loss.
        """
        super().__init__(**kwargs)
        if cls_loss.num_logits != 1:
            raise UserError(
                f"MODEL.CLS_LOSS.NAME {cls_loss.extra_repr()} is over classes and background, but "
                "RankingRPN has one logit an anchor; choose another loss, or "
                "MODEL.PROPOSAL_GENERATOR.NAME RPN"
            )
        self.cls_loss = cls_loss

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """What ``cfg.MODEL.RPN`` and ``cfg.MODEL.CLS_LOSS`` say."""
        node = cfg.MODEL.RPN
        return {
            **super().from_config(cfg, input_shape),
            "anchor_matcher": OverlapMatcher(
                node.IOU_THRESHOLDS, node.IOU_LABELS, allow_low_quality_matches=True
            ),
            "cls_loss": ClsLoss(cfg, num_classes=1),
        }

    def _subsample_labels(self, label: Tensor) -> Tensor:
        return label

    def losses(self, anchors, pred_objectness_logits, gt_labels, pred_anchor_deltas, gt_boxes):
        """Arguments and keys as in :meth:`RPN.losses`."""
        losses = super().losses(
            anchors, pred_objectness_logits, gt_labels, pred_anchor_deltas, gt_boxes
        )
        labels = torch.stack(gt_labels).long()  # (N, R) 1 positive, 0 negative, -1 ignored
        classes = torch.where(labels >= 0, 1 - labels, labels)
        with get_event_storage().name_scope("rpn"):  # beside the ranking of the second stage
            loss = self.cls_loss([level[..., None] for level in pred_objectness_logits], classes)
        losses["loss_rpn_cls"] = self.loss_weight.get("loss_rpn_cls", 1.0) * loss["loss_cls"]
        return losses
