"""RetinaNet trained with any loss of :mod:`apdet.losses`."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, build_anchor_generator
from detectron2.modeling.box_regression import Box2BoxTransform, _dense_box_regression_loss
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from apdet.modeling.dense import RankingDenseDetector, feature_shapes
from apdet.modeling.matcher import OverlapMatcher
from apdet.modeling.retinanet_head import RankingRetinaNetHead


@META_ARCH_REGISTRY.register()
class RankingRetinaNet(RankingDenseDetector, RetinaNet):
    """RetinaNet (arXiv:1708.02002) with one ranking over the anchors and classes of a batch.

    With ``focal_loss`` and the normaliser "ema", the detector trains like Detectron2's RetinaNet.
    It takes the arguments of :class:`RankingDenseDetector` and of :class:`RetinaNet`.
    """

    initial_normalizer = 100.0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Read ``cfg.MODEL.RETINANET``, ``ANCHOR_GENERATOR`` and ``CLS_LOSS``."""
        node, kwargs = cfg.MODEL.RETINANET, super().from_config(cfg)
        shapes = feature_shapes(kwargs)
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
        """Build the head: (features of each level) -> (logits, deltas) of each level.

        Args:
            cfg: the config.
            shapes: the shapes of the features, from fine to coarse.
            num_logits: number of logits of an anchor.
        """
        return RankingRetinaNetHead(cfg, shapes, num_logits=num_logits)

    def forward_training(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: Sequence[list[Tensor]],
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        """Compute the losses; arguments and result as in :meth:`RetinaNet.forward_training`."""
        logits, deltas = self._transpose_dense_predictions(
            predictions, [self.cls_loss.num_logits, 4]
        )
        anchors = self.anchor_generator(features)
        gt_labels, gt_boxes = self.label_anchors(anchors, gt_instances)
        return self.losses(anchors, logits, gt_labels, deltas, gt_boxes)

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Compute the losses, with one ranking over the batch.

        Arguments and result are the same as for :meth:`RetinaNet.losses`.
        """
        labels = torch.stack(gt_labels)  # (N, R)
        pos_mask = (labels >= 0) & (labels != self.num_classes)  # (N, R)
        normalizer = self.update_normalizer(pos_mask)
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
            **self.cls_loss(pred_logits, labels, normalizer=normalizer),
            "loss_box_reg": self.box_reg_loss_weight * loss_box_reg / normalizer,
        }

    def forward_inference(
        self, images: ImageList, features: list[Tensor], predictions: Sequence[list[Tensor]]
    ) -> list[Instances]:
        """Detect objects; arguments and result as in :meth:`RetinaNet.forward_inference`."""
        logits, deltas = self._transpose_dense_predictions(
            predictions, [self.cls_loss.num_logits, 4]
        )
        scores = [self.cls_loss.scores(level) for level in logits]
        return self.detect(images, features, scores, deltas)
