"""Corrects image sizes and boxes in annotations that disagree with the image files."""

import logging
import math
import os
import struct
from collections.abc import Iterable
from typing import Any

from PIL import Image

from apdet.errors import UserError

logger = logging.getLogger(__name__)

# The errors that Pillow raises on a file that is not an image, or is truncated.
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)

_ORIENTATION = 0x0112  # the EXIF tag; its values 5 to 8 mean a quarter turn
_CLIPPED = "boxes reach outside their image and were clipped to it"
_DROPPED = "boxes are empty or wholly outside their image and were dropped"
_RESIZED = "images have another size than their annotations say; the images' sizes are used"


def clean(dicts: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Correct image sizes, and clip or drop boxes that reach outside their image.

    Each kind of flaw is logged in one warning with the number of flaws and the first file.

    Args:
        dicts: Detectron2's dataset dicts with boxes in XYXY_ABS, and with "source", the annotation
            file. "height" and "width" may be None if they are not known.
        name: the name of the data set in warnings.

    Returns:
        The corrected dicts, without "source".

    Raises:
        UserError: an image is missing or is not an image, or a box is not finite.
    """
    flaws: dict[str, list[str]] = {_CLIPPED: [], _DROPPED: [], _RESIZED: []}
    cleaned = []
    for old in dicts:
        image = {**old}
        source, file_name = image.pop("source"), image["file_name"]
        width, height = image_size(file_name)
        stated = image.get("width"), image.get("height")
        if None not in stated and stated != (width, height):
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
    """The part of a box inside the image; None if it is empty."""
    if not all(math.isfinite(value) for value in box):
        raise UserError(f"{source}: the box {box} is not finite; correct or remove it")
    x0, y0, x1, y1 = box
    x0, x1 = max(x0, 0.0), min(x1, float(width))
    y0, y1 = max(y0, 0.0), min(y1, float(height))
    return [x0, y0, x1, y1] if x0 < x1 and y0 < y1 else None


def image_size(file_name: str) -> tuple[int, int]:
    """Read (width, height) in pixels from the header of an image file, turned as its EXIF says.

    Raises:
        UserError: the file is missing or is not an image.
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
    """Make the error for a file that cannot be read as an image."""
    return UserError(
        f"{file_name}: not a readable image ({error}); replace it or remove it from the data set"
    )


def _orientation(image: Image.Image) -> int | None:
    try:
        # The base class's method, because PNG's own decodes the whole image first.
        return Image.Image.getexif(image).get(_ORIENTATION)
    except Exception:  # broken EXIF can raise anything; Detectron2 then does not turn the image
        return None
