"""The base class of the dense detectors: their settings, their normaliser and their inference."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from apdet.errors import ArgumentError
from apdet.modeling.cls_loss import ClsLoss
from apdet.modeling.contract import AnchorMatches

NORMALIZERS = ("batch", "ema")


class RankingDenseDetector(DenseDetector):
    """The parts that :class:`RankingRetinaNet` and :class:`RankingFCOS` share.

    In the list of base classes it comes before Detectron2's class:
    ``class RankingFCOS(RankingDenseDetector, FCOS)``.
    """

    # See apdet.modeling.contract.
    class_layer = "head.cls_score"
    num_classes_key = "MODEL.RETINANET.NUM_CLASSES"
    num_classes: int
    # The initial value of the moving average of the number of positives, as in Detectron2.
    initial_normalizer: float
    loss_normalizer: Tensor | None

    @configurable
    def __init__(
        self,
        *,
        cls_loss: ClsLoss,
        box_reg_loss_weight: float = 1.0,
        loss_normalizer: str = "batch",
        test_score_thresh_per_level: Sequence[float] = (),
        **kwargs: Any,
    ):
        """Build the detector.

        Args:
            cls_loss: the classification loss. The head predicts its ``num_logits`` for each anchor.
            box_reg_loss_weight: factor of the box loss.
            loss_normalizer: the normaliser of losses that sum over anchors. "batch": the number of
                positives in the batch. "ema": Detectron2's moving average of that number, which
                checkpoints hold.
            test_score_thresh_per_level: one score threshold for each feature level; empty: all
                levels use ``test_score_thresh``.
            kwargs: the arguments of Detectron2's class, except the arguments of its focal loss.

        Raises:
            UserError: the normaliser is unknown, or the number of thresholds is wrong.
        """
        super().__init__(**kwargs)
        if loss_normalizer not in NORMALIZERS:
            raise ArgumentError(
                "RankingDenseDetector",
                "{loss_normalizer} is {value!r}; choose 'batch' or 'ema'",
                value=loss_normalizer,
            )
        thresholds, levels = list(test_score_thresh_per_level), list(self.head_in_features)
        if thresholds and len(thresholds) != len(levels):
            raise ArgumentError(
                "RankingDenseDetector",
                "{test_score_thresh_per_level} has {count} values for the {num_levels} levels "
                "{levels}; give one value for each level, or none",
                count=len(thresholds),
                num_levels=len(levels),
                levels=levels,
            )
        self.cls_loss = cls_loss
        self.box_reg_loss_weight = box_reg_loss_weight
        self.test_score_thresh_per_level = thresholds
        # A buffer, so that checkpoints hold it.
        is_average = loss_normalizer == "ema"
        average = torch.tensor(self.initial_normalizer) if is_average else None
        self.register_buffer("loss_normalizer", average)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Read ``cfg.MODEL.RETINANET``, whose keys apply to all dense detectors."""
        node = cfg.MODEL.RETINANET
        return {
            "backbone": build_backbone(cfg),
            "head_in_features": node.IN_FEATURES,
            "num_classes": node.NUM_CLASSES,
            "cls_loss": ClsLoss(cfg, num_classes=node.NUM_CLASSES),
            "box_reg_loss_weight": node.BBOX_REG_LOSS_WEIGHT,
            "loss_normalizer": node.LOSS_NORMALIZER,
            "test_score_thresh": node.SCORE_THRESH_TEST,
            "test_score_thresh_per_level": node.SCORE_THRESH_TEST_PER_LEVEL,
            "test_topk_candidates": node.TOPK_CANDIDATES_TEST,
            "test_nms_thresh": node.NMS_THRESH_TEST,
            "max_detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @torch.no_grad()
    def match_anchors(self, batched_inputs: Sequence[Mapping[str, Any]]) -> AnchorMatches:
        """Match the anchors of a training batch to its boxes.

        Args:
            batched_inputs: dicts with "image" (3, H, W) and "instances" with the ground truth.
        """
        features = self.backbone(self.preprocess_image(batched_inputs).tensor)
        anchors = self.anchor_generator([features[name] for name in self.head_in_features])
        instances = [x["instances"].to(self.device) for x in batched_inputs]
        labels, _ = self.label_anchors(anchors, instances)
        counts = [len(level) for level in anchors]
        return AnchorMatches(
            dict(zip(self.head_in_features, counts, strict=True)), torch.stack(labels)
        )

    def update_normalizer(self, pos_mask: Tensor) -> Tensor:
        """Update the moving average, if there is one, and return the normaliser, (), of this batch.

        Args:
            pos_mask: (N, R) bool. The positive anchors.
        """
        num_positives = self.cls_loss.num_positives_per_process(pos_mask.sum())
        if self.loss_normalizer is None:
            return num_positives
        self.loss_normalizer.mul_(0.9).add_(0.1 * num_positives)
        return self.loss_normalizer.clone()

    def detect(
        self, images: ImageList, features: list[Tensor], scores: list[Tensor], deltas: list[Tensor]
    ) -> list[Instances]:
        """Find the detections in each image.

        Args:
            images: N images.
            features: (N, C, H_l, W_l) for each level l.
            scores: (N, R_l, K) for each level l with R_l anchors.
            deltas: (N, R_l, 4) for each level.
        """
        anchors = self.anchor_generator(features)
        return [
            self.inference_single_image(
                anchors, [x[i] for x in scores], [x[i] for x in deltas], size
            )
            for i, size in enumerate(images.image_sizes)
        ]

    def _decode_multi_level_predictions(
        self,
        anchors: list[Boxes],
        pred_scores: list[Tensor],
        pred_deltas: list[Tensor],
        score_thresh: float,
        topk_candidates: int,
        image_size: tuple[int, int],
    ) -> Instances:
        # Detectron2's method has one threshold for all levels.
        thresholds = self.test_score_thresh_per_level or [score_thresh] * len(anchors)
        predictions = [
            self._decode_per_level_predictions(*level, topk_candidates, image_size)
            for level in zip(anchors, pred_scores, pred_deltas, thresholds, strict=True)
        ]
        return predictions[0].cat(predictions)


def feature_shapes(kwargs: Mapping[str, Any]) -> list[ShapeSpec]:
    """The shapes of the head's features, from fine to coarse.

    Args:
        kwargs: the result of :meth:`RankingDenseDetector.from_config`.
    """
    shapes = kwargs["backbone"].output_shape()
    return [shapes[name] for name in kwargs["head_in_features"]]
