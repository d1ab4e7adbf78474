"""Corrects image sizes and boxes in annotations that disagree with the image files."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from apdet.data.flaws import Flaws
from apdet.data.image_header import IMAGE_ERRORS, image_size, unreadable, unreadable_file
from apdet.data.image_sizes import Size, image_sizes
from apdet.errors import UserError

__all__ = ["IMAGE_ERRORS", "clean", "image_size", "in_order", "unreadable", "unreadable_file"]

_SWAPPED = "boxes have their corners in the wrong order, which was put right"
_CLIPPED = "boxes reach outside their image and were clipped to it"
_EMPTY = "boxes are empty and were dropped"
_OUTSIDE = "boxes are wholly outside their image and were dropped"
_THIN = "boxes are narrower or lower than a pixel"
_RESIZED = "images have another size than their annotations say; the images' sizes are used"
_MASK_RESIZED = "masks have another size than their image and were dropped; their boxes are kept"
_MAX_COORDINATE = 1e6  # no image is as large
_MOSTLY_OUTSIDE = (
    "More than half of all boxes do: do they belong to other images, or are they [x0, y0, x1, y1] "
    "in place of [x, y, width, height]?"
)


def clean(
    dicts: Iterable[dict[str, Any]],
    flaws: Flaws,
    read_sizes: Callable[[Sequence[str]], list[Size]] = image_sizes,
) -> list[dict[str, Any]]:
    """Correct image sizes, and clip or drop boxes that reach outside their image.

    Args:
        dicts: Detectron2's dataset dicts with boxes in XYXY_ABS, and with "source", the annotation
            file. "height" and "width" may be None if they are not known. They are not changed.
        flaws: each correction is added to them.
        read_sizes: reads the sizes of image files.

    Returns:
        The corrected dicts, without "source". They share with ``dicts`` what is not corrected.

    Raises:
        UserError: an image is missing or is not an image, the boxes cannot be in pixels, or no box
            is left.
    """
    dicts = list(dicts)
    _check_pixels(dicts)
    sizes = read_sizes([image["file_name"] for image in dicts])
    cleaned = [_clean_image(old, size, flaws) for old, size in zip(dicts, sizes, strict=True)]
    num_boxes = sum(len(image.get("annotations", [])) for image in dicts)
    if num_boxes and not any(image.get("annotations") for image in cleaned):
        source = next(image["source"] for image in dicts if image.get("annotations"))
        raise UserError(
            f"{source}: all {num_boxes} boxes are empty or wholly outside their images; correct "
            "them, or the names of their images"
        )
    num_outside = flaws.count(_CLIPPED) + flaws.count(_OUTSIDE)
    if num_outside > max(1, num_boxes / 2):
        for kind in (_CLIPPED, _OUTSIDE):
            flaws.explain(kind, _MOSTLY_OUTSIDE)
    return cleaned


def _clean_image(old: dict[str, Any], size: Size, flaws: Flaws) -> dict[str, Any]:
    image = {key: value for key, value in old.items() if key != "source"}
    file_name, (width, height) = image["file_name"], size
    stated = image.get("width"), image.get("height")
    if None not in stated and stated != size:
        flaws.add(_RESIZED, file_name)
    image["width"], image["height"] = width, height
    if "annotations" in image:
        image["annotations"] = kept = []
        for annotation in old["annotations"]:
            box = _clip(annotation["bbox"], width, height, file_name, flaws)
            if box is None:
                continue
            if box is not annotation["bbox"]:
                annotation = {**annotation, "bbox": box}
            kept.append(_with_fitting_mask(annotation, image, flaws))
    return image


def _check_pixels(dicts: Iterable[dict[str, Any]]) -> None:
    """Raise a UserError if a box is too large, or if all boxes are fractions of their images."""
    boxes = np.array(
        [box["bbox"] for image in dicts for box in image.get("annotations", [])], dtype=np.float64
    ).reshape(-1, 4)
    are_in_pixels = (abs(boxes) <= _MAX_COORDINATE).all(axis=1)  # nan is not
    if not are_in_pixels.all():
        number = int(are_in_pixels.argmin())
        raise UserError(
            f"{_source_of_box(dicts, number)}: the box {boxes[number].tolist()} is not in pixels; "
            "correct or remove it"
        )
    # Rounding, and corners in place of width and height, lead to numbers above 1.
    if len(boxes) > 1 and (abs(boxes) <= 1.5).all() and (boxes % 1).any():
        raise UserError(
            f"{_source_of_box(dicts, 0)}: all boxes lie between 0 and 1, so they are fractions of "
            "the image; write pixels: multiply them by the width and the height of the image"
        )


def _source_of_box(dicts: Iterable[dict[str, Any]], number: int) -> str:
    """The annotation file of a box, which has this number among all boxes."""
    sources = (image["source"] for image in dicts for _ in image.get("annotations", []))
    return next(itertools.islice(sources, number, None))


def _with_fitting_mask(
    annotation: dict[str, Any], image: dict[str, Any], flaws: Flaws
) -> dict[str, Any]:
    """Drop a run-length encoded mask that has not the size of its image."""
    mask = annotation.get("segmentation")
    if isinstance(mask, dict) and list(mask["size"]) != [image["height"], image["width"]]:
        flaws.add(_MASK_RESIZED, image["file_name"])
        return {key: value for key, value in annotation.items() if key != "segmentation"}
    return annotation


def in_order(box: list[float], flaws: Flaws, place: str) -> list[float]:
    """Put the corners of a box, XYXY, in the right order: x0 <= x1 and y0 <= y1."""
    x0, y0, x1, y1 = box
    if x0 <= x1 and y0 <= y1:
        return box
    flaws.add(_SWAPPED, place)
    return [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]


def _clip(
    box: list[float], width: int, height: int, file_name: str, flaws: Flaws
) -> list[float] | None:
    """The part of a box inside the image, which may be the box itself; None if it is empty."""
    x0, y0, x1, y1 = box
    is_inside = x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height
    if is_inside and x1 - x0 >= 1 and y1 - y0 >= 1:
        return box  # as almost all boxes
    if x0 >= x1 or y0 >= y1:
        flaws.add(_EMPTY, file_name)
        return None
    clipped = [max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))]
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        flaws.add(_OUTSIDE, file_name)
        return None
    if clipped != box:
        flaws.add(_CLIPPED, file_name)
    if min(x1 - x0, y1 - y0) < 1:
        flaws.add(_THIN, file_name)
    return clipped
