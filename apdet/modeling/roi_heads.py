"""Faster and Cascade R-CNN whose second stage is trained with a loss of :mod:`apdet.losses`."""

import math
from typing import Any

import torch.nn.functional as F  # noqa: N812
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor, nn

from apdet.errors import UserError
from apdet.modeling.class_layers import roi_class_layers
from apdet.modeling.cls_loss import ClsLoss


class RankingOutputLayers(FastRCNNOutputLayers):
    """Detectron2's box predictor with one ranking over the RoIs and classes of a batch.

    With a ranking loss, each RoI has one sigmoid logit for each class, see section A4.3 of the
    AP-loss paper (arXiv:2008.07294). Boxes are predicted and trained as in Detectron2.
    """

    @configurable
    def __init__(
        self, input_shape: ShapeSpec, *, cls_loss: ClsLoss, prior_prob: float = 0.01, **kwargs: Any
    ):
        """Build the predictor.

        Args:
            input_shape: the shape of the features of a RoI.
            cls_loss: the classification loss. The predictor has its ``num_logits`` for each RoI.
                If the loss has a sampler, it samples from the RoIs of the whole batch.
            prior_prob: the probability of each class at the start, for losses over sigmoids.
            kwargs: the arguments of :class:`FastRCNNOutputLayers`, except ``num_classes``.
        """
        super().__init__(input_shape, num_classes=cls_loss.num_classes, **kwargs)
        self.cls_loss = cls_loss
        # This replaces Detectron2's layer, which always has a logit for the background.
        layer = nn.Linear(self.bbox_pred.in_features, cls_loss.num_logits)
        nn.init.normal_(layer.weight, std=0.01)
        bias = 0.0 if cls_loss.softmax else -math.log((1 - prior_prob) / prior_prob)
        nn.init.constant_(layer.bias, bias)
        self.cls_score = layer

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict:
        """Read the keys of Detectron2's class, ``CLS_LOSS`` and ``ROI_BOX_HEAD.PRIOR_PROB``."""
        kwargs = super().from_config(cfg, input_shape)
        cross_entropy = {"use_sigmoid_ce", "use_fed_loss"}
        cross_entropy |= {"get_fed_loss_cls_weights", "fed_loss_num_classes"}
        kept = {key: value for key, value in kwargs.items() if key not in cross_entropy}
        num_classes = kept.pop("num_classes")
        return {
            **kept,
            "cls_loss": ClsLoss(cfg, num_classes=num_classes),
            "prior_prob": cfg.MODEL.ROI_BOX_HEAD.PRIOR_PROB,
        }

    def losses(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor]:
        """Compute the losses; arguments and result as in :meth:`FastRCNNOutputLayers.losses`."""
        logits, deltas = predictions
        gt_classes = cat([p.gt_classes for p in proposals])
        # An image without ground truths has no gt_boxes, and the box loss uses none of its RoIs.
        gt_boxes = [p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes for p in proposals]
        losses = self.cls_loss([logits[None]], gt_classes[None])
        losses["loss_box_reg"] = self.box_reg_loss(
            cat([p.proposal_boxes.tensor for p in proposals]),
            cat([boxes.tensor for boxes in gt_boxes]),
            deltas,
            gt_classes,
        )
        return {key: self.loss_weight.get(key, 1.0) * loss for key, loss in losses.items()}

    def predict_probs(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> list[Tensor]:
        """Compute the scores; arguments as in :meth:`FastRCNNOutputLayers.predict_probs`.

        Returns:
            (R_i, K + 1) for each image: the scores of the classes, and 0 for the background, which
            Detectron2 does not read.
        """
        scores = F.pad(self.cls_loss.scores(predictions[0]), (0, 1))
        return list(scores.split([len(p) for p in proposals]))


@ROI_HEADS_REGISTRY.register()
class RankingROIHeads(StandardROIHeads):
    """Detectron2's heads of Faster, Mask and Keypoint R-CNN with :class:`RankingOutputLayers`."""

    # See apdet.modeling.contract.
    num_classes_key = "MODEL.ROI_HEADS.NUM_CLASSES"
    class_layers = property(roi_class_layers)

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        _check_loss(cfg)
        parts = super()._init_box_head(cfg, input_shape)
        parts["box_predictor"] = RankingOutputLayers(cfg, parts["box_head"].output_shape)
        return parts


@ROI_HEADS_REGISTRY.register()
class RankingCascadeROIHeads(CascadeROIHeads):
    """Detectron2's heads of Cascade R-CNN with a :class:`RankingOutputLayers` in each stage."""

    # See apdet.modeling.contract.
    num_classes_key = "MODEL.ROI_HEADS.NUM_CLASSES"
    class_layers = property(roi_class_layers)

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        _check_loss(cfg)
        parts = super()._init_box_head(cfg, input_shape)
        parts["box_predictors"] = [
            RankingOutputLayers(cfg, head.output_shape, box2box_transform=theirs.box2box_transform)
            for head, theirs in zip(parts["box_heads"], parts["box_predictors"], strict=True)
        ]
        return parts


def _check_loss(cfg: CfgNode) -> None:
    node = cfg.MODEL.ROI_BOX_HEAD
    for key in ("USE_FED_LOSS", "USE_SIGMOID_CE"):
        if node[key]:
            raise UserError(
                f"MODEL.ROI_BOX_HEAD.{key} chooses a loss of Detectron2, but "
                f"{cfg.MODEL.ROI_HEADS.NAME} uses the loss of MODEL.CLS_LOSS; set it to False, or "
                "set MODEL.ROI_HEADS.NAME to StandardROIHeads or CascadeROIHeads"
            )
