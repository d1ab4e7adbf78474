"""Reads the predictions that Detectron2's COCO evaluator writes."""

import json
import os
from collections.abc import Hashable
from pathlib import Path

import numpy as np
from detectron2.data.catalog import Metadata

from apdet.errors import UserError
from apdet.evaluation.matching import Detections


def read_predictions(
    predictions_json: str | os.PathLike, metadata: Metadata, image_ids: set[Hashable]
) -> dict[Hashable, Detections]:
    """Read the detections on a data set from a file.

    Args:
        predictions_json: a file in COCO's format for results.
        metadata: Detectron2's metadata of the data set. Its ``thing_dataset_id_to_contiguous_id``
            maps the category ids of the file to classes. Without it, the category ids are classes.
        image_ids: the ids of all images of the data set.

    Returns:
        {image id: detections} of each image with a detection.

    Raises:
        UserError: the file has another format, or its predictions are on another data set.
    """
    classes = metadata.get("thing_dataset_id_to_contiguous_id")
    if classes is None:
        classes = {k: k for k in range(len(metadata.thing_classes))}
    by_image: dict[Hashable, list[tuple]] = {}
    try:
        for result in json.loads(Path(predictions_json).read_text()):
            x, y, width, height = result["bbox"]
            box = (x, y, x + width, y + height)
            detections = by_image.setdefault(result["image_id"], [])
            detections.append((box, result["score"], classes[result["category_id"]]))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{predictions_json}: not predictions in COCO's format on {metadata.name}: {error!r}"
        ) from error
    if unknown_ids := by_image.keys() - image_ids:
        raise UserError(
            f"{predictions_json}: predictions on image {next(iter(unknown_ids))!r}, which is not "
            f"in {metadata.name}; evaluate again to renew the file"
        )
    return {image_id: _stack(detections) for image_id, detections in by_image.items()}


def _stack(detections: list[tuple]) -> Detections:
    """Stack (box, score, class) of the detections of one image."""
    boxes, scores, classes = zip(*detections, strict=True)
    return Detections(
        np.array(boxes, dtype=np.float64),
        np.array(scores, dtype=np.float64),
        np.array(classes, dtype=np.int64),
    )
