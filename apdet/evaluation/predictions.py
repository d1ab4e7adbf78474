"""Predictions as Detectron2's COCO evaluator leaves them on the disk."""

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
    """The detections of each image that has any, by image id.

    Args:
        predictions_json: a file in COCO's format of results.
        metadata: of the data set; its ``thing_dataset_id_to_contiguous_id``, if there is one, takes
            the category ids of the file to classes.
        image_ids: those of the data set.

    Raises:
        UserError: not such a file, or not one of this data set.
    """
    classes = metadata.get("thing_dataset_id_to_contiguous_id")
    if classes is None:
        classes = {k: k for k in range(len(metadata.thing_classes))}
    of_image: dict[Hashable, list[tuple]] = {}
    try:
        for result in json.loads(Path(predictions_json).read_text()):
            x, y, width, height = result["bbox"]
            box = (x, y, x + width, y + height)
            found = of_image.setdefault(result["image_id"], [])
            found.append((box, result["score"], classes[result["category_id"]]))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{predictions_json}: not predictions in COCO's format on {metadata.name}: {error!r}"
        ) from error
    if strangers := of_image.keys() - image_ids:
        raise UserError(
            f"{predictions_json}: predictions on image {next(iter(strangers))!r}, which is not in "
            f"{metadata.name}; evaluate again to renew them"
        )
    return {image_id: _stack(found) for image_id, found in of_image.items()}


def _stack(found: list[tuple]) -> Detections:
    boxes, scores, classes = zip(*found, strict=True)
    return Detections(
        np.array(boxes, dtype=np.float64),
        np.array(scores, dtype=np.float64),
        np.array(classes, dtype=np.int64),
    )
