"""Reads the size of an image from the header of its file."""

import os
import stat
import struct

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from apdet.errors import UserError

# The errors that Pillow raises on a file that is not an image, or is truncated.
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)

_ORIENTATION = 0x0112  # the EXIF tag; its values 5 to 8 mean a quarter turn
_IMAGE_WIDTH, _IMAGE_LENGTH = 256, 257  # tags of TIFF


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
