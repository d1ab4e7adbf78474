"""Selects the detections to show: those above a score threshold."""

import math
import os
from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from apdet.evaluation.matching import Detections, Objects, read_objects
from apdet.evaluation.operating_point import best_f1_threshold
from apdet.evaluation.predictions import read_predictions

TOP_K = 5  # detections per image if no threshold can be chosen
MAX_BOXES = 100  # detections, and objects, that are drawn on an image


class Evaluated(NamedTuple):
    """The detections on a data set, and its ground truth."""

    detections: dict[Hashable, Detections]  # images without detections may be absent
    objects: dict[Hashable, Objects]


def read_evaluated(dataset_name: str, predictions_json: str | os.PathLike) -> Evaluated:
    """Read the detections on a data set, and its ground truth.

    Args:
        dataset_name: the name of a registered data set.
        predictions_json: ``coco_instances_results.json`` of the evaluator.

    Raises:
        UserError: the predictions cannot be read, or are on another data set.
    """
    objects = read_objects(DatasetCatalog.get(dataset_name))
    metadata = MetadataCatalog.get(dataset_name)
    return Evaluated(read_predictions(predictions_json, metadata, objects), objects)


def select(
    found: Evaluated,
    *,
    score_threshold: float | None = None,
    validation: tuple[str, str | os.PathLike] | None = None,
) -> tuple[dict[Hashable, Detections], str]:
    """Select the detections to show, and write a title that says which they are.

    Args:
        found: the detections to select from.
        score_threshold: show those with at least this score. None: the threshold with the best F1;
            if there is none, the best detections of each image.
        validation: the name and the predictions of the data set that chooses the threshold. None:
            ``found`` does.

    Raises:
        UserError: the predictions on the validation set cannot be read.
    """
    detections = found.detections
    if score_threshold is not None:
        return _above(detections, score_threshold), f"detections with score ≥ {score_threshold}"
    chosen_on, where = found, ""
    if validation is not None:
        chosen_on, where = read_evaluated(*validation), f" on {validation[0]}"
    best = best_f1_threshold(*chosen_on)
    if best is None:
        top = {image_id: _top_k(detected, TOP_K) for image_id, detected in detections.items()}
        return top, f"the {TOP_K} best detections of each image"
    threshold, f1 = best
    return _above(detections, threshold), (
        f"detections with score ≥ {score_text(threshold)}, "
        f"where F1 at IoU 0.5 is best{where} ({f1:.2f})"
    )


def score_text(score: float) -> str:
    """Format a score with two significant digits of its distance to 0 or 1.

    A ranking loss may give scores that are all very close to 0 or 1.
    """
    distance = min(score, 1 - score)
    return f"{score:.{1 - math.floor(math.log10(distance))}f}" if distance > 0 else f"{score:g}"


def is_crowded(detections: Detections | None, objects: Objects) -> bool:
    """Whether an image has more than `MAX_BOXES` detections or objects."""
    num_detections = 0 if detections is None else len(detections.scores)
    return max(num_detections, len(objects.boxes)) > MAX_BOXES


def best_detections(detections: Detections | None) -> Detections | None:
    """The detections in an image, or the best `MAX_BOXES` of them."""
    if detections is None or len(detections.scores) <= MAX_BOXES:
        return detections
    return _top_k(detections, MAX_BOXES)


def largest_objects(objects: Objects) -> Objects:
    """The objects in an image, or the largest `MAX_BOXES` of them."""
    if len(objects.boxes) <= MAX_BOXES:
        return objects
    areas = (objects.boxes[:, 2:] - objects.boxes[:, :2]).prod(axis=1)
    order = np.argsort(-areas, kind="stable")[:MAX_BOXES]
    return Objects(*(values[order] for values in objects))


def _top_k(detections: Detections, k: int) -> Detections:
    order = np.argsort(-detections.scores, kind="stable")[:k]
    return Detections(*(values[order] for values in detections))


def _above(detections: dict[Hashable, Detections], threshold: float) -> dict[Hashable, Detections]:
    return {
        image_id: Detections(*(values[found.scores >= threshold] for values in found))
        for image_id, found in detections.items()
    }
