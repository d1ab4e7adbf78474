"""Matches detections to ground truth by the rule of PASCAL VOC."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.structures import BoxMode
from torchvision.ops import box_iou

TRUE_POSITIVE, FALSE_POSITIVE, IGNORED = 1, 0, -1
HIT = TRUE_POSITIVE  # the name in apdet 0.1


class Detections(NamedTuple):
    """The detections in one image. Boxes are XYXY, in pixels."""

    boxes: np.ndarray  # (D, 4) float64
    scores: np.ndarray  # (D,) float64
    classes: np.ndarray  # (D,) int64


class Objects(NamedTuple):
    """The ground truth of one image. Boxes are XYXY, in pixels.

    VOC's difficult objects and COCO's crowds are ignored. A detection of an ignored object is
    neither a true nor a false positive, and a missed ignored object is not an error.
    """

    boxes: np.ndarray  # (M, 4) float64
    classes: np.ndarray  # (M,) int64
    ignored: np.ndarray  # (M,) bool


class Verdicts(NamedTuple):
    """All detections of a data set, each with its verdict."""

    scores: np.ndarray  # (D,) float64
    classes: np.ndarray  # (D,) int64
    verdicts: np.ndarray  # (D,) int64 in {TRUE_POSITIVE, FALSE_POSITIVE, IGNORED}


def read_objects(dataset_dicts: Iterable[Mapping[str, Any]]) -> dict[Hashable, Objects]:
    """Read the ground truth from Detectron2's dataset dicts.

    Returns:
        {image id: ground truth}.
    """
    return {image["image_id"]: _objects_of(image) for image in dataset_dicts}


def _objects_of(image: Mapping[str, Any]) -> Objects:
    annotations = image.get("annotations", [])
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    return Objects(
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array([a["category_id"] for a in annotations], dtype=np.int64),
        np.array([a.get("iscrowd", 0) for a in annotations], dtype=bool),
    )


def match_detections(
    detections: Mapping[Hashable, Detections],
    objects: Mapping[Hashable, Objects],
    *,
    iou_threshold: float = 0.5,
) -> Verdicts:
    """Match every detection to the ground truth of its class in its image.

    The verdict on a detection depends only on detections with higher scores. So verdicts do not
    change when detections with low scores are removed.

    Args:
        detections: {image id: detections}. Images without detections may be absent.
        objects: {image id: ground truth} of every image.
        iou_threshold: a detection matches the object with the highest IoU if that IoU is above
            this threshold.
    """
    of_images = detections.values()
    verdicts = [
        _match_image(detected, objects[image_id], iou_threshold)
        for image_id, detected in detections.items()
    ]
    return Verdicts(
        np.concatenate([np.empty(0), *(detected.scores for detected in of_images)]),
        np.concatenate([np.empty(0, np.int64), *(detected.classes for detected in of_images)]),
        np.concatenate([np.empty(0, np.int64), *verdicts]),
    )


def _match_image(detections: Detections, ground_truth: Objects, iou_threshold: float) -> np.ndarray:
    """The verdicts (D,) on the detections of one image, in their order."""
    verdicts = np.full(len(detections.scores), FALSE_POSITIVE, dtype=np.int64)
    for k in np.unique(detections.classes):
        of_class = detections.classes == k
        gt_of_class = ground_truth.classes == k
        verdicts[of_class] = _match_class(
            detections.boxes[of_class],
            detections.scores[of_class],
            ground_truth.boxes[gt_of_class],
            ground_truth.ignored[gt_of_class],
            iou_threshold,
        )
    return verdicts


def _match_class(
    boxes: np.ndarray,
    scores: np.ndarray,
    gt_boxes: np.ndarray,
    gt_ignored: np.ndarray,
    iou_threshold: float,
) -> np.ndarray:
    """The verdicts (D,) on the detections of one class in one image, in their order."""
    verdicts = np.full(len(boxes), FALSE_POSITIVE, dtype=np.int64)
    if len(gt_boxes) == 0:
        return verdicts
    # Boxes are 0-based and half-open here. VOC's files count pixels from 1 and include the last
    # one, so VOC adds 1 to each side length. Both give the same IoU.
    iou = box_iou(torch.from_numpy(boxes), torch.from_numpy(gt_boxes)).nan_to_num().numpy()
    best = iou.argmax(axis=1)  # (D,)
    taken = np.zeros(len(gt_boxes), dtype=bool)
    for i in np.argsort(-scores, kind="stable"):
        # If the best object is taken, the second best one is not tried: that is VOC's rule.
        if iou[i, best[i]] <= iou_threshold:
            continue
        if gt_ignored[best[i]]:
            verdicts[i] = IGNORED
        elif not taken[best[i]]:
            verdicts[i] = TRUE_POSITIVE
            taken[best[i]] = True
    return verdicts
