"""Reads the predictions that Detectron2's COCO evaluator writes."""

import json
import os
from collections.abc import Hashable, Iterable
from pathlib import Path

import numpy as np
from detectron2.data.catalog import Metadata

from apdet.errors import UserError
from apdet.evaluation.coco_ids import category_ids, number_images
from apdet.evaluation.matching import Detections


def read_predictions(
    predictions_json: str | os.PathLike, metadata: Metadata, image_ids: Iterable[Hashable]
) -> dict[Hashable, Detections]:
    """Read the detections on a data set from a file.

    Args:
        predictions_json: a file in COCO's format for results.
        metadata: Detectron2's metadata of the data set. The category ids in the file are those of
            `category_ids`.
        image_ids: the ids of all images, in the order of the data set. In the file they are those
            of `number_images`; a file of apdet 0.1 may have strings, which are the ids themselves.

    Returns:
        {image id: detections} of each image with a detection.

    Raises:
        UserError: the file is broken, or its predictions are on another data set.
    """
    numbers = number_images(image_ids)
    ids: dict[Hashable, Hashable] = {i: i for i in numbers if isinstance(i, str)}
    ids |= {number: image_id for image_id, number in numbers.items()}
    classes = {category_id: k for k, category_id in category_ids(metadata).items()}
    by_image: dict[Hashable, list[tuple]] = {}
    try:
        for result in json.loads(Path(predictions_json).read_text()):
            x, y, width, height = result["bbox"]
            box = (x, y, x + width, y + height)
            detections = by_image.setdefault(result["image_id"], [])
            detections.append((box, result["score"], classes[result["category_id"]]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{predictions_json}: not predictions in COCO's format on {metadata.name}: {error!r}; "
            "evaluate again to renew the file"
        ) from error
    if unknown_ids := by_image.keys() - ids.keys():
        raise UserError(
            f"{predictions_json}: predictions on image {next(iter(unknown_ids))!r}, which is not "
            f"in {metadata.name}; evaluate again to renew the file"
        )
    return {ids[image_id]: _stack(detections) for image_id, detections in by_image.items()}


def _stack(detections: list[tuple]) -> Detections:
    """Stack (box, score, class) of the detections of one image."""
    boxes, scores, classes = zip(*detections, strict=True)
    return Detections(
        np.array(boxes, dtype=np.float64),
        np.array(scores, dtype=np.float64),
        np.array(classes, dtype=np.int64),
    )
