"""RetinaNet trained with any loss of :mod:`apdet.losses`."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, build_anchor_generator
from detectron2.modeling.box_regression import Box2BoxTransform, _dense_box_regression_loss
from detectron2.modeling.meta_arch import RetinaNet
from torch import nn

from apdet.modeling.cls_loss import ClsLoss
from apdet.modeling.dense import (
    decode_levels,
    dense_kwargs,
    detect,
    first_normalizer,
    level_thresholds,
    update_normalizer,
)
from apdet.modeling.matcher import OverlapMatcher
from apdet.modeling.retinanet_head import RankingRetinaNetHead


@META_ARCH_REGISTRY.register()
class RankingRetinaNet(RetinaNet):
    """RetinaNet (arXiv:1708.02002) with one ranking over the anchors and classes of a batch.

    With ``focal_loss`` and the normaliser "ema" it trains as Detectron2's RetinaNet does.
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
            cls_loss: the classification loss; the head gives each anchor its ``num_logits``.
            box_reg_loss_weight: factor of the box loss.
            loss_normalizer: what sums over anchors are divided by: "batch", the positives of the
                batch, or "ema", Detectron2's moving average of them (kept in checkpoints).
            test_score_thresh_per_level: score thresholds, one a level; empty: the same for all.
            kwargs: those of :class:`RetinaNet`.
        """
        super().__init__(**kwargs)
        self.cls_loss = cls_loss
        self.box_reg_loss_weight = box_reg_loss_weight
        self.test_score_thresh_per_level = level_thresholds(
            test_score_thresh_per_level, self.head_in_features
        )
        # 100 is Detectron2's first value.
        self.register_buffer("loss_normalizer", first_normalizer(loss_normalizer, 100.0))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """What ``cfg.MODEL.RETINANET`` and ``cfg.MODEL.CLS_LOSS`` say."""
        node, kwargs = cfg.MODEL.RETINANET, dense_kwargs(cfg)
        shapes = kwargs["backbone"].output_shape()
        shapes = [shapes[name] for name in node.IN_FEATURES]
        return {
            **kwargs,
            "head": cls.build_head(cfg, shapes, kwargs["cls_loss"].num_logits),
            "anchor_generator": build_anchor_generator(cfg, shapes),
            "box2box_transform": Box2BoxTransform(weights=node.BBOX_REG_WEIGHTS),
            "anchor_matcher": OverlapMatcher(
                node.IOU_THRESHOLDS, node.IOU_LABELS, allow_low_quality_matches=True
            ),
            "box_reg_loss_type": node.BBOX_REG_LOSS_TYPE,
            "smooth_l1_beta": node.SMOOTH_L1_LOSS_BETA,
            "vis_period": cfg.VIS_PERIOD,
            "input_format": cfg.INPUT.FORMAT,
        }

    @classmethod
    def build_head(cls, cfg: CfgNode, shapes: list[ShapeSpec], num_logits: int) -> nn.Module:
        """The head: (features of each level) -> (logits, deltas) of each level.

        Args:
            cfg: the config.
            shapes: of the features, from fine to coarse.
            num_logits: of an anchor.
        """
        return RankingRetinaNetHead(cfg, shapes, num_logits=num_logits)

    def forward_training(self, images, features, predictions, gt_instances):
        """Arguments and keys as in :meth:`RetinaNet.forward_training`."""
        logits, deltas = self._transpose_dense_predictions(
            predictions, [self.cls_loss.num_logits, 4]
        )
        anchors = self.anchor_generator(features)
        gt_labels, gt_boxes = self.label_anchors(anchors, gt_instances)
        return self.losses(anchors, logits, gt_labels, deltas, gt_boxes)

    def losses(self, anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes):
        """Arguments and keys as in :meth:`RetinaNet.losses`; one ranking spans the mini-batch."""
        gt_labels = torch.stack(gt_labels)  # (N, R)
        pos_mask = (gt_labels >= 0) & (gt_labels != self.num_classes)  # (N, R)
        normalizer = update_normalizer(
            self.loss_normalizer, self.cls_loss.positives_a_process(pos_mask.sum())
        )
        loss_box_reg = _dense_box_regression_loss(
            anchors,
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            pos_mask,
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        return {
            **self.cls_loss(pred_logits, gt_labels, normalizer=normalizer),
            "loss_box_reg": self.box_reg_loss_weight * loss_box_reg / normalizer,
        }

    def forward_inference(self, images, features, predictions):
        """Arguments and result as in :meth:`RetinaNet.forward_inference`."""
        logits, deltas = self._transpose_dense_predictions(
            predictions, [self.cls_loss.num_logits, 4]
        )
        scores = [self.cls_loss.scores(level) for level in logits]
        return detect(self, images, features, scores, deltas)

    _decode_multi_level_predictions = decode_levels
