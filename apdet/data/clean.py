"""Corrects image sizes and boxes in annotations that disagree with the image files."""

import os
import stat
import struct
from collections.abc import Iterable
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from apdet.data.flaws import Flaws
from apdet.errors import UserError

# The errors that Pillow raises on a file that is not an image, or is truncated.
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)

_ORIENTATION = 0x0112  # the EXIF tag; its values 5 to 8 mean a quarter turn
_IMAGE_WIDTH, _IMAGE_LENGTH = 256, 257  # tags of TIFF
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


def clean(dicts: Iterable[dict[str, Any]], flaws: Flaws) -> list[dict[str, Any]]:
    """Correct image sizes, and clip or drop boxes that reach outside their image.

    Args:
        dicts: Detectron2's dataset dicts with boxes in XYXY_ABS, and with "source", the annotation
            file. "height" and "width" may be None if they are not known.
        flaws: each correction is added to them.

    Returns:
        The corrected dicts, without "source".

    Raises:
        UserError: an image is missing or is not an image, the boxes cannot be in pixels, or no box
            is left.
    """
    dicts = list(dicts)
    _check_pixels(dicts)
    cleaned = [_clean_image(image, flaws) for image in dicts]
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


def _clean_image(old: dict[str, Any], flaws: Flaws) -> dict[str, Any]:
    image = {key: value for key, value in old.items() if key != "source"}
    file_name = image["file_name"]
    width, height = image_size(file_name)
    stated = image.get("width"), image.get("height")
    if None not in stated and stated != (width, height):
        flaws.add(_RESIZED, file_name)
    image["width"], image["height"] = width, height
    if "annotations" in image:
        image["annotations"] = kept = []
        for annotation in old["annotations"]:
            box = _clip(annotation["bbox"], width, height, file_name, flaws)
            if box is not None:
                kept.append(_with_fitting_mask({**annotation, "bbox": box}, image, flaws))
    return image


def _check_pixels(dicts: Iterable[dict[str, Any]]) -> None:
    """Raise a UserError if a box is too large, or if all boxes are fractions of their images."""
    found = [
        (annotation["bbox"], image["source"])
        for image in dicts
        for annotation in image.get("annotations", [])
    ]
    for box, source in found:
        if not all(abs(value) <= _MAX_COORDINATE for value in box):  # nan is not, either
            raise UserError(f"{source}: the box {box} is not in pixels; correct or remove it")
    # Rounding, and corners in place of width and height, lead to numbers above 1.
    are_small = all(abs(value) <= 1.5 for box, _ in found for value in box)
    if len(found) > 1 and are_small and any(value % 1 for box, _ in found for value in box):
        raise UserError(
            f"{found[0][1]}: all boxes lie between 0 and 1, so they are fractions of the image; "
            "write pixels: multiply them by the width and the height of the image"
        )


def _with_fitting_mask(
    annotation: dict[str, Any], image: dict[str, Any], flaws: Flaws
) -> dict[str, Any]:
    """Drop a run-length encoded mask that has not the size of its image."""
    mask = annotation.get("segmentation")
    if isinstance(mask, dict) and list(mask["size"]) != [image["height"], image["width"]]:
        flaws.add(_MASK_RESIZED, image["file_name"])
        del annotation["segmentation"]
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
    """The part of a box inside the image; None if it is empty."""
    x0, y0, x1, y1 = box
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


def image_size(file_name: str) -> tuple[int, int]:
    """Read (width, height) in pixels from the header of an image file, turned as its EXIF says.

    Raises:
        UserError: the file is missing or is not an image.
    """
    _check_is_file(file_name)
    try:
        with Image.open(file_name) as image:
            width, height = image.size
            if isinstance(image, TiffImageFile):  # Pillow may already have turned the size
                width, height = image.tag_v2[_IMAGE_WIDTH], image.tag_v2[_IMAGE_LENGTH]
            turned = _orientation(image) in (5, 6, 7, 8)
    except IMAGE_ERRORS as error:
        raise unreadable(file_name, error) from error
    return (height, width) if turned else (width, height)


def _check_is_file(file_name: str) -> None:
    try:
        is_file = stat.S_ISREG(os.stat(file_name).st_mode)
    except PermissionError as error:
        raise unreadable_file(file_name, error) from error
    except (OSError, ValueError):  # such as a loop of links, or a name with the character 0
        is_file = False
    if not is_file:
        raise UserError(f"{file_name}: no such image; add it or remove it from the data set")


def unreadable(file_name: str, error: Exception) -> UserError:
    """Make the error for a file that cannot be read as an image."""
    if isinstance(error, PermissionError):
        return unreadable_file(file_name, error)
    # Pillow does not know TIFF files with floats in colours or with numbers of 64 bits.
    is_tiff = str(file_name).lower().endswith((".tif", ".tiff"))
    depth = " by one of 8 or 16 bits" * (is_tiff and isinstance(error, UnidentifiedImageError))
    return UserError(
        f"{file_name}: not a readable image ({error}); replace it{depth} or remove it from the "
        "data set"
    )


def unreadable_file(path: str | os.PathLike, error: OSError) -> UserError:
    """Make the error for a file or folder that the operating system does not let us read."""
    return UserError(
        f"{os.fspath(path)}: cannot be read ({error.strerror or error}); make it readable for you, "
        "or correct the path"
    )


def _orientation(image: Image.Image) -> int | None:
    try:
        # The base class's method, because PNG's own decodes the whole image first.
        return Image.Image.getexif(image).get(_ORIENTATION)
    except Exception:  # broken EXIF can raise anything; Detectron2 then does not turn the image
        return None
