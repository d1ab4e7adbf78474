"""FCOS trained with any loss of :mod:`apdet.losses`."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import cat
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.box_regression import _dense_box_regression_loss
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from apdet.modeling.cls_loss import ClsLoss
from apdet.modeling.dense import (
    decode_levels,
    dense_kwargs,
    detect,
    first_normalizer,
    level_thresholds,
    update_normalizer,
)


@META_ARCH_REGISTRY.register()
class RankingFCOS(FCOS):
    """FCOS (arXiv:2006.09214) with one ranking over the points and classes of a batch.

    A detection's score is sqrt(score of the class * centerness). With ``focal_loss`` and the
    normaliser "ema" it trains as Detectron2's FCOS does.
    """

    @configurable
    def __init__(
        self,
        *,
        cls_loss: ClsLoss,
        box_reg_loss_weight: float = 1.0,
        loss_normalizer: str = "batch",
        test_score_thresh_per_level: Sequence[float] = (),
        **kwargs,
    ):
        """Build the detector.

        Args:
            cls_loss: the classification loss; the head gives each point its ``num_logits``.
            box_reg_loss_weight: factor of the box loss.
            loss_normalizer: "batch" or "ema", as of :class:`RankingRetinaNet`.
            test_score_thresh_per_level: score thresholds, one a level; empty: the same for all.
            kwargs: those of :class:`FCOS`, but for ``focal_loss_alpha`` and ``focal_loss_gamma``.
        """
        super().__init__(**kwargs)
        self.cls_loss = cls_loss
        self.box_reg_loss_weight = box_reg_loss_weight
        self.test_score_thresh_per_level = level_thresholds(
            test_score_thresh_per_level, self.head_in_features
        )
        # 300 is Detectron2's first value.
        self.register_buffer("loss_normalizer", first_normalizer(loss_normalizer, 300.0))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """What ``MODEL.RETINANET``, ``MODEL.FCOS`` and ``MODEL.CLS_LOSS`` of ``cfg`` say."""
        node, kwargs = cfg.MODEL.RETINANET, dense_kwargs(cfg)
        features = kwargs["backbone"].output_shape()
        shapes = [features[name] for name in node.IN_FEATURES]
        head = FCOSHead(
            input_shape=shapes,
            num_classes=kwargs["cls_loss"].num_logits,
            conv_dims=[shapes[0].channels] * node.NUM_CONVS,
            norm=node.NORM,
            prior_prob=node.PRIOR_PROB,
        )
        radius = cfg.MODEL.FCOS.CENTER_SAMPLING_RADIUS
        return {**kwargs, "head": head, "center_sampling_radius": radius}

    def forward_training(self, images, features, predictions, gt_instances):
        """Arguments as in :meth:`FCOS.forward_training`; keys as of :meth:`losses`."""
        logits, deltas, centerness = self._transpose(predictions)
        anchors = self.anchor_generator(features)
        gt_labels, gt_boxes = self.label_anchors(anchors, gt_instances)
        return self.losses(anchors, logits, gt_labels, deltas, gt_boxes, centerness)

    def losses(
        self, anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes, pred_centerness
    ):
        """Arguments as in :meth:`FCOS.losses`; one ranking spans the mini-batch.

        Returns:
            {"loss_cls": (), "loss_box_reg": (), "loss_centerness": ()}.
        """
        gt_labels = torch.stack(gt_labels)  # (N, R)
        pos_mask = gt_labels != self.num_classes  # (N, R); no point is ignored
        normalizer = update_normalizer(
            self.loss_normalizer, self.cls_loss.positives_a_process(pos_mask.sum())
        )
        # First of all: it tells that numbers are NaN, where the box loss fails an assertion.
        loss_cls = self.cls_loss(pred_logits, gt_labels, normalizer=normalizer)
        loss_box_reg = _dense_box_regression_loss(
            anchors,
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            pos_mask,
            box_reg_loss_type="giou",
        )
        loss_centerness = binary_cross_entropy_with_logits(
            cat(pred_centerness, dim=1).squeeze(2)[pos_mask],  # (P,)
            self.compute_ctrness_targets(anchors, gt_boxes)[pos_mask],
            reduction="sum",
        )
        return {
            **loss_cls,
            "loss_box_reg": self.box_reg_loss_weight * loss_box_reg / normalizer,
            "loss_centerness": loss_centerness / normalizer,
        }

    def forward_inference(self, images, features, predictions):
        """Arguments and result as in :meth:`FCOS.forward_inference`."""
        logits, deltas, centerness = self._transpose(predictions)
        scores = [
            torch.sqrt(self.cls_loss.scores(x) * y.sigmoid())
            for x, y in zip(logits, centerness, strict=True)
        ]
        return detect(self, images, features, scores, deltas)

    def _transpose(self, predictions: Sequence[list[Tensor]]) -> tuple[list[Tensor], ...]:
        """Logits (N, R_l, num_logits), deltas (N, R_l, 4), centerness (N, R_l, 1) of each level."""
        logits, deltas, centerness = self._transpose_dense_predictions(
            predictions, [self.cls_loss.num_logits, 4, 1]
        )
        # In float16, areas from 256 x 256 pixels on are infinite.
        return logits, [x.float() for x in deltas], centerness

    _decode_multi_level_predictions = decode_levels
