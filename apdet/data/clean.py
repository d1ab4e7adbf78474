"""Puts right what real annotations get wrong, as far as the images tell how."""

import logging
import math
import os
import struct
from collections.abc import Iterable
from typing import Any

from PIL import Image

from apdet.errors import UserError

logger = logging.getLogger(__name__)

# All that Pillow raises on a file that is no image or not a whole one.
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)

_ORIENTATION = 0x0112  # the EXIF tag; its values 5 to 8 turn the image by a quarter
_CLIPPED = "boxes reach outside their image and were clipped to it"
_DROPPED = "boxes are empty or wholly outside their image and were dropped"
_RESIZED = "images have another size than their annotations say; the images' sizes are used"


def clean(dicts: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Detectron2's dicts with true image sizes and boxes that lie within the image.

    Each kind of flaw is logged as one warning, which counts it and names the first file.

    Args:
        dicts: with boxes in XYXY_ABS, and "source", the annotation file, which is taken out.
            "height" and "width" may be None: not known.
        name: what warnings call the data set.

    Raises:
        UserError: a missing image, a file that is no image, a box that is not finite.
    """
    flaws: dict[str, list[str]] = {_CLIPPED: [], _DROPPED: [], _RESIZED: []}
    cleaned = []
    for old in dicts:
        image = {**old}
        source, file_name = image.pop("source"), image["file_name"]
        width, height = image_size(file_name)
        told = image.get("width"), image.get("height")
        if None not in told and told != (width, height):
            flaws[_RESIZED].append(file_name)
        image["width"], image["height"] = width, height
        if "annotations" in image:
            image["annotations"] = kept = []
            for annotation in old["annotations"]:
                box = _clip(annotation["bbox"], width, height, source)
                if box is None:
                    flaws[_DROPPED].append(file_name)
                    continue
                if box != annotation["bbox"]:
                    flaws[_CLIPPED].append(file_name)
                kept.append({**annotation, "bbox": box})
        cleaned.append(image)
    for flaw, files in flaws.items():
        if files:
            logger.warning(f"{name}: {len(files)} {flaw}; the first is in {files[0]}")
    return cleaned


def _clip(box: list[float], width: int, height: int, source: str) -> list[float] | None:
    """The part of the box within the image; None if there is none."""
    if not all(math.isfinite(value) for value in box):
        raise UserError(f"{source}: the box {box} is not finite; correct or remove it")
    x0, y0, x1, y1 = box
    x0, x1 = max(x0, 0.0), min(x1, float(width))
    y0, y1 = max(y0, 0.0), min(y1, float(height))
    return [x0, y0, x1, y1] if x0 < x1 and y0 < y1 else None


def image_size(file_name: str) -> tuple[int, int]:
    """(width, height) by the file's header, turned as Detectron2 turns it when reading.

    Raises:
        UserError: no such file, or no image.
    """
    if not os.path.isfile(file_name):
        raise UserError(f"{file_name}: no such image; add it or remove it from the data set")
    try:
        with Image.open(file_name) as image:
            width, height = image.size
            turned = _orientation(image) in (5, 6, 7, 8)
    except IMAGE_ERRORS as error:
        raise unreadable(file_name, error) from error
    return (height, width) if turned else (width, height)


def unreadable(file_name: str, error: Exception) -> UserError:
    """The error for a file that cannot be read as an image."""
    return UserError(
        f"{file_name}: not a readable image ({error}); replace it or remove it from the data set"
    )


def _orientation(image: Image.Image) -> int | None:
    try:
        # The base class's method: that of PNG decodes the whole image to look behind it.
        return Image.Image.getexif(image).get(_ORIENTATION)
    except Exception:  # broken EXIF raises anything; Detectron2 then takes the image as it is
        return None
