"""Reads an image file of any depth as pixels of 8 bits."""

import logging
from typing import BinaryIO

import cv2
import numpy as np
from detectron2.data.detection_utils import _apply_exif_orientation, convert_PIL_to_numpy
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import log_first_n
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from apdet.data.image_header import IMAGE_ERRORS, check_image_file, unreadable
from apdet.errors import UserError

# Number of channels of each image format. Pillow's names, and those that Detectron2 adds.
CHANNELS = {
    "BGR": 3, "RGB": 3, "L": 1, "YUV-BT.601": 3, "HSV": 3, "YCbCr": 3, "LAB": 3, "CMYK": 4,
}  # fmt: skip

_REMEDY = "save it with 8 or 16 bits, or remove it from the data set"
# Modes that Pillow cannot convert to every format, and a mode between.
_BETWEEN = {"La": "LA", "LAB": "RGB"}
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF
# Formats of still pictures that hold further versions of the same picture.
_STILL = ("MPO", "ICO", "ICNS")


def read_image(file_name: str, image_format: str, *, bits: int | None = None) -> np.ndarray:
    """Read an image file, turned as its EXIF says.

    An image of 8 bits a channel gives the same values as Detectron2's ``read_image``. Integers of
    more bits and floats in [0, 1] are scaled to 8 bits by their depth, not by their values, so
    equal pixels stay equal in all images. Transparency is dropped. Of several frames, the first is
    read.

    Args:
        file_name: the path of the image.
        image_format: a key of `CHANNELS`.
        bits: number of bits that pixels of a 16-bit image use, if the file does not say so: cameras
            of 12 bits often write files of 16 bits. None: all 16. Images of 8 bits ignore it.

    Returns:
        (H, W, C) uint8. For "YUV-BT.601": float32, Y in [0, 1].

    Raises:
        UserError: the file is missing or broken; its pixels have no known range; or they are so
            dark that the file seems to use fewer than 16 bits, and ``bits`` is None.
    """
    if "://" not in file_name:  # else it is an address that Detectron2 may know
        check_image_file(file_name)
    try:
        with PathManager.open(file_name, "rb") as file, Image.open(file) as image:
            if getattr(image, "is_animated", False) and image.format not in _STILL:
                log_first_n(
                    logging.WARNING,
                    f"{file_name} holds several frames; of such files only the first is used",
                )
            pixels = convert_PIL_to_numpy(_eight_bit(image, file, file_name, bits), image_format)
    except UserError:
        raise
    except IMAGE_ERRORS as error:
        raise unreadable(file_name, error) from error
    return pixels.astype(np.float32) if pixels.dtype == np.float64 else pixels


def _eight_bit(image: Image.Image, file: BinaryIO, name: str, bits: int | None) -> Image.Image:
    """The image with 8 bits a channel, turned as its EXIF says."""
    raw = str(getattr(image, "tile", ""))
    # Pillow finds truncated files. It also turns a TIFF, which must come before the turn by EXIF.
    image.load()
    if image.mode in ("RGB", "RGBA") and ";16" in raw and "RGBa" not in raw:
        # Pillow keeps only the upper 8 bits of 16-bit colours.
        file.seek(0)
        data = np.frombuffer(file.read(), dtype=np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)  # turned, no alpha
        if pixels is None:
            raise OSError("cannot decode its colours of 16 bits")
        return Image.fromarray(_scaled(pixels[..., ::-1], bits or 16, name, is_known=bool(bits)))
    turned = _apply_exif_orientation(image)
    if image.mode == "F":
        grey = _scaled_floats(np.asarray(turned), name)
    elif image.mode.startswith("I"):
        depth = _stated_depth(image, name) or bits
        grey = _scaled(np.asarray(turned), depth or 16, name, is_known=bool(depth))
    else:
        between = _BETWEEN.get(image.mode)
        return turned.convert(between) if between else turned
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0:  # 0 is white
        grey = 255 - grey
    return Image.fromarray(grey)


def _stated_depth(image: Image.Image, name: str) -> int | None:
    """The number of bits that the file says its grey pixels use; None if it has 16 bits."""
    # Pillow gives the mode "I" to 32-bit and to signed integers. It gives it to PNG and PGM, too,
    # which have 16 bits at most; it scales a PGM to 16 bits.
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise UserError(f"{name}: its pixels are signed or 32-bit integers; {_REMEDY}")
    if not isinstance(image, TiffImageFile):
        return None
    samples = image.tag_v2[_BITS_PER_SAMPLE][0]
    return samples if samples < 16 else None


def _scaled(pixels: np.ndarray, bits: int, name: str, *, is_known: bool) -> np.ndarray:
    """Scale unsigned integers of this many bits to 8 bits."""
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    brightest, limit = int(pixels.max()), 2**bits - 1
    if brightest > limit:
        raise UserError(
            f"{name}: it has a pixel of {brightest}, more than {bits} bits hold; correct `bits` in "
            "the entry of its data set"
        )
    if not is_known and 0 < brightest < 2**12:
        raise UserError(
            f"{name}: an image of 16 bits, but its brightest pixel is {brightest}, so it may use "
            "fewer; write `bits: 12` (or the depth of the camera) in the entry of its data set, or "
            "`bits: 16` if the image is just dark"
        )
    return np.rint(pixels * (255 / limit)).astype(np.uint8)


def _scaled_floats(pixels: np.ndarray, name: str) -> np.ndarray:
    """Scale floats in [0, 1] to 8 bits."""
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # neither holds for nan
        raise UserError(
            f"{name}: its pixels are floats from {pixels.min():g} to {pixels.max():g}, but only "
            f"those in [0, 1] have a known range; {_REMEDY}"
        )
    return np.rint(pixels * 255.0).astype(np.uint8)
