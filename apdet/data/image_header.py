"""Reads the size of an image from the header of its file."""

import struct

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from apdet.errors import UserError
from apdet.files import check_regular_file, unreadable_file

# The errors that Pillow raises on a file that is not an image, or is truncated.
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)

_ORIENTATION = 0x0112  # the EXIF tag; its values 5 to 8 mean a quarter turn
_IMAGE_WIDTH, _IMAGE_LENGTH = 256, 257  # tags of TIFF


def image_size(file_name: str) -> tuple[int, int]:
    """Read (width, height) in pixels from the header of an image file, turned as its EXIF says.

    Raises:
        UserError: the file is missing or is not an image.
    """
    check_image_file(file_name)
    try:
        with Image.open(file_name) as image:
            width, height = image.size
            if isinstance(image, TiffImageFile):  # Pillow may already have turned the size
                width, height = image.tag_v2[_IMAGE_WIDTH], image.tag_v2[_IMAGE_LENGTH]
            turned = _orientation(image) in (5, 6, 7, 8)
    except IMAGE_ERRORS as error:
        raise unreadable(file_name, error) from error
    return (height, width) if turned else (width, height)


def check_image_file(file_name: str) -> None:
    """Check that an image is a regular file; a UserError if it is not."""
    check_regular_file(file_name, missing="no such image; add it or remove it from the data set")


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


def _orientation(image: Image.Image) -> int | None:
    try:
        # The base class's method, because PNG's own decodes the whole image first.
        return Image.Image.getexif(image).get(_ORIENTATION)
    except Exception:  # broken EXIF can raise anything; Detectron2 then does not turn the image
        return None
