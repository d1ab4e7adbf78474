"""FCOS trained with any loss of :mod:`apdet.losses`."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.layers import cat
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.box_regression import _dense_box_regression_loss
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from apdet.modeling.dense import RankingDenseDetector, feature_shapes


@META_ARCH_REGISTRY.register()
class RankingFCOS(RankingDenseDetector, FCOS):
    """FCOS (arXiv:2006.09214) with one ranking over the points and classes of a batch.

    The score of a detection is sqrt(score of the class * centerness). With ``focal_loss`` and the
    normaliser "ema", the detector trains like Detectron2's FCOS. It takes the arguments of
    :class:`RankingDenseDetector` and of :class:`FCOS`.
    """

    initial_normalizer = 300.0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Read ``MODEL.RETINANET``, ``MODEL.FCOS`` and ``MODEL.CLS_LOSS`` of ``cfg``."""
        node, kwargs = cfg.MODEL.RETINANET, super().from_config(cfg)
        shapes = feature_shapes(kwargs)
        head = FCOSHead(
            input_shape=shapes,
            num_classes=kwargs["cls_loss"].num_logits,
            conv_dims=[shapes[0].channels] * node.NUM_CONVS,
            norm=node.NORM,
            prior_prob=node.PRIOR_PROB,
        )
        radius = cfg.MODEL.FCOS.CENTER_SAMPLING_RADIUS
        return {**kwargs, "head": head, "center_sampling_radius": radius}

    def forward_training(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: Sequence[list[Tensor]],
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        """Compute the losses; arguments as in :meth:`FCOS.forward_training`."""
        logits, deltas, centerness = self._transpose(predictions)
        anchors = self.anchor_generator(features)
        gt_labels, gt_boxes = self.label_anchors(anchors, gt_instances)
        return self.losses(anchors, logits, gt_labels, deltas, gt_boxes, centerness)

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
        pred_centerness: list[Tensor],
    ) -> dict[str, Tensor]:
        """Compute the losses, with one ranking over the batch.

        The arguments are the same as for :meth:`FCOS.losses`.

        Returns:
            {"loss_cls": (), "loss_box_reg": (), "loss_centerness": ()}.
        """
        labels = torch.stack(gt_labels)  # (N, R)
        pos_mask = labels != self.num_classes  # (N, R); no point is ignored
        normalizer = self.update_normalizer(pos_mask)
        # The classification loss comes first: it reports NaN, where the box loss would only assert.
        loss_cls = self.cls_loss(pred_logits, labels, normalizer=normalizer)
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

    def forward_inference(
        self, images: ImageList, features: list[Tensor], predictions: Sequence[list[Tensor]]
    ) -> list[Instances]:
        """Detect objects; arguments and result as in :meth:`FCOS.forward_inference`."""
        logits, deltas, centerness = self._transpose(predictions)
        scores = [
            torch.sqrt(self.cls_loss.scores(x) * y.sigmoid())
            for x, y in zip(logits, centerness, strict=True)
        ]
        return self.detect(images, features, scores, deltas)

    def _transpose(self, predictions: Sequence[list[Tensor]]) -> tuple[list[Tensor], ...]:
        """Reshape to logits (N, R_l, num_logits), deltas (N, R_l, 4), centerness (N, R_l, 1)."""
        logits, deltas, centerness = self._transpose_dense_predictions(
            predictions, [self.cls_loss.num_logits, 4, 1]
        )
        # Float16 cannot hold the area of a box of 256 x 256 pixels.
        return logits, [x.float() for x in deltas], centerness
