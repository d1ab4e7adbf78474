"""The region proposal network with a loss of :mod:`apdet.losses` for its objectness."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes
from detectron2.utils.events import get_event_storage
from torch import Tensor

from apdet.errors import ArgumentError
from apdet.modeling.cls_loss import ClsLoss
from apdet.modeling.matcher import OverlapMatcher


@PROPOSAL_GENERATOR_REGISTRY.register()
class RankingRPN(RPN):
    """Detectron2's RPN with one ranking over all anchors of a batch, without sampling."""

    @configurable
    def __init__(self, *, cls_loss: ClsLoss, **kwargs: Any):
        """Build the network.

        Args:
            cls_loss: the loss for the objectness, with one class and one logit.
            kwargs: the arguments of :class:`RPN`. ``batch_size_per_image`` is only used to
                normalise the box loss, because anchors are not sampled.

        Raises:
            UserError: the loss needs a logit for the background.
        """
        super().__init__(**kwargs)
        if cls_loss.num_logits != 1:
            raise ArgumentError(
                "RankingRPN",
                "{cls_loss} {loss} needs a logit for the background, but RankingRPN has one logit "
                "for each anchor; choose another loss, or Detectron2's RPN",
                loss=cls_loss.extra_repr(),
            )
        self.cls_loss = cls_loss

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """Read ``cfg.MODEL.RPN`` and ``cfg.MODEL.CLS_LOSS``."""
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

    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Compute the losses; arguments and result as in :meth:`RPN.losses`."""
        losses = super().losses(
            anchors, pred_objectness_logits, gt_labels, pred_anchor_deltas, gt_boxes
        )
        labels = torch.stack(gt_labels).long()  # (N, R) 1 positive, 0 negative, -1 ignored
        classes = torch.where(labels >= 0, 1 - labels, labels)
        with get_event_storage().name_scope("rpn"):  # separates its log from the second stage's
            loss = self.cls_loss([level[..., None] for level in pred_objectness_logits], classes)
        losses["loss_rpn_cls"] = self.loss_weight.get("loss_rpn_cls", 1.0) * loss["loss_cls"]
        return losses
