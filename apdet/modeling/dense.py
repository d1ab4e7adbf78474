"""What the dense detectors share: their settings, their normaliser, and their inference."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from apdet.errors import UserError
from apdet.modeling.cls_loss import ClsLoss


def dense_kwargs(cfg: CfgNode) -> dict:
    """The backbone, the loss, and what ``cfg.MODEL.RETINANET`` says to any dense detector."""
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


def first_normalizer(kind: str, first_value: float) -> Tensor | None:
    """What :func:`update_normalizer` starts from; to be a buffer, so that a resumed training can.

    Args:
        kind: what sums over anchors are divided by: "batch", the positives of the batch, or "ema",
            Detectron2's moving average of them.
        first_value: of the moving average.

    Returns:
        (), or None for "batch".

    Raises:
        UserError: another ``kind``.
    """
    if kind not in ("batch", "ema"):
        raise UserError(f"MODEL.RETINANET.LOSS_NORMALIZER is {kind!r}; choose 'batch' or 'ema'")
    return torch.tensor(first_value) if kind == "ema" else None


def update_normalizer(moving_average: Tensor | None, num_positives: Tensor) -> Tensor:
    """What sums over the anchors of this batch are divided by, ().

    Args:
        moving_average: (), which is moved, in place; None: ``num_positives`` is it.
        num_positives: (), of the batch, at least 1.
    """
    if moving_average is None:
        return num_positives
    moving_average.mul_(0.9).add_(0.1 * num_positives)
    return moving_average.clone()


def level_thresholds(thresholds: Sequence[float], levels: Sequence[str]) -> list[float]:
    """The score thresholds of the levels; empty: the same for all.

    Raises:
        UserError: they are another number than the levels.
    """
    thresholds = list(thresholds)
    if thresholds and len(thresholds) != len(levels):
        raise UserError(
            f"MODEL.RETINANET.SCORE_THRESH_TEST_PER_LEVEL has {len(thresholds)} values for the "
            f"{len(levels)} levels {list(levels)}; give one a level, or none"
        )
    return thresholds


def detect(
    model: DenseDetector,
    images: ImageList,
    features: list[Tensor],
    scores: list[Tensor],
    deltas: list[Tensor],
) -> list[Instances]:
    """The detections in each image.

    Args:
        model: the detector.
        images: N of them.
        features: of each level.
        scores: (N, R_l, K) of R_l anchors of each level l.
        deltas: (N, R_l, 4).
    """
    anchors = model.anchor_generator(features)
    return [
        model.inference_single_image(anchors, [x[i] for x in scores], [x[i] for x in deltas], size)
        for i, size in enumerate(images.image_sizes)
    ]


def decode_levels(
    model: DenseDetector,
    anchors: list[Boxes],
    pred_scores: list[Tensor],
    pred_deltas: list[Tensor],
    score_thresh: float,
    topk_candidates: int,
    image_size: tuple[int, int],
) -> Instances:
    """As ``DenseDetector._decode_multi_level_predictions``, which it is to be in a detector.

    The levels have the thresholds ``model.test_score_thresh_per_level``, if there are some.
    """
    thresholds = model.test_score_thresh_per_level or [score_thresh] * len(anchors)
    predictions = [
        model._decode_per_level_predictions(*level, topk_candidates, image_size)
        for level in zip(anchors, pred_scores, pred_deltas, thresholds, strict=True)
    ]
    return predictions[0].cat(predictions)
