"""Which detection finds which object, by the rule of PASCAL VOC."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.structures import BoxMode
from torchvision.ops import box_iou

HIT, FALSE_POSITIVE, IGNORED = 1, 0, -1


class Detections(NamedTuple):
    """What was detected in one image; the boxes are XYXY, in pixels."""

    boxes: np.ndarray  # (D, 4) float64
    scores: np.ndarray  # (D,) float64
    classes: np.ndarray  # (D,) int64


class Objects(NamedTuple):
    """What there is in one image; the boxes are XYXY, in pixels."""

    boxes: np.ndarray  # (M, 4) float64
    classes: np.ndarray  # (M,) int64
    ignored: np.ndarray  # (M,) bool. VOC's difficult and COCO's crowd boxes: neither hit nor miss


class Verdicts(NamedTuple):
    """All detections of a data set, judged."""

    scores: np.ndarray  # (D,) float64
    classes: np.ndarray  # (D,) int64
    verdicts: np.ndarray  # (D,) int64 in {HIT, FALSE_POSITIVE, IGNORED}


def read_objects(dataset_dicts: Iterable[Mapping[str, Any]]) -> dict[Hashable, Objects]:
    """The objects of each image, by image id, from Detectron2's dataset dicts."""
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
    """Judge every detection against the objects of its class in its image.

    A verdict depends on detections of higher score alone, so it stays when those of lower score
    are taken away.

    Args:
        detections: of each image, by image id. Images may be absent.
        objects: of each image, by image id.
        iou_threshold: a detection finds its best object if their IoU is above this.
    """
    verdicts = []
    for image_id, found in detections.items():
        there = objects[image_id]
        of_image = np.full(len(found.scores), FALSE_POSITIVE, dtype=np.int64)
        for k in np.unique(found.classes):
            mine, theirs = found.classes == k, there.classes == k
            of_image[mine] = _match(
                found.boxes[mine],
                found.scores[mine],
                there.boxes[theirs],
                there.ignored[theirs],
                iou_threshold,
            )
        verdicts.append(of_image)
    found = detections.values()
    return Verdicts(
        np.concatenate([np.empty(0), *(f.scores for f in found)]),
        np.concatenate([np.empty(0, dtype=np.int64), *(f.classes for f in found)]),
        np.concatenate([np.empty(0, dtype=np.int64), *verdicts]),
    )


def _match(
    boxes: np.ndarray,
    scores: np.ndarray,
    true_boxes: np.ndarray,
    ignored: np.ndarray,
    iou_threshold: float,
) -> np.ndarray:
    """Verdicts (D,) on the detections of one class in one image, in the order they come in."""
    verdicts = np.full(len(boxes), FALSE_POSITIVE, dtype=np.int64)
    if len(true_boxes) == 0:
        return verdicts
    # Boxes are 0-based and half-open. VOC's files count pixels from 1 and include the last one, so
    # VOC's "+ 1" in each side length is just xmax - xmin here: plain IoU is the same number.
    iou = box_iou(torch.from_numpy(boxes), torch.from_numpy(true_boxes)).nan_to_num().numpy()
    best = iou.argmax(axis=1)  # (D,)
    taken = np.zeros(len(true_boxes), dtype=bool)
    for i in np.argsort(-scores, kind="stable"):
        # A detection whose best object is taken does not fall back on its second best.
        if iou[i, best[i]] <= iou_threshold:
            continue
        if ignored[best[i]]:
            verdicts[i] = IGNORED
        elif not taken[best[i]]:
            verdicts[i] = HIT
            taken[best[i]] = True
    return verdicts
