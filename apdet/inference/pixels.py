"""Turns images in memory into the pixels that a model takes."""

import numpy as np
from detectron2.data.detection_utils import convert_PIL_to_numpy
from PIL import Image, ImageOps

from apdet.errors import UserError


def to_pixels(image: np.ndarray | Image.Image, channels: str, image_format: str) -> np.ndarray:
    """Convert an image to the channels of a model.

    Args:
        image: (H, W, 3) or (H, W) uint8, or an image of Pillow, which is turned as its EXIF says.
        channels: "RGB" or "BGR", the order of the channels of an array.
        image_format: the channels of the model, a key of `apdet.data.image.CHANNELS`.

    Returns:
        (H, W, C).

    Raises:
        UserError: the array has another type or shape, or ``channels`` is something else.
    """
    if channels not in ("RGB", "BGR"):
        raise UserError(f"channels is {channels!r}; choose RGB or BGR")
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or (image.ndim != 2 and image.shape[2:] != (3,)):
            raise UserError(
                f"an image is an array of {image.dtype} of shape {image.shape}; give uint8 of "
                "shape (height, width, 3) or (height, width)"
            )
        if image.ndim == 3 and channels == "BGR":
            image = image[:, :, ::-1]
        image = Image.fromarray(image)
    upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.asarray(convert_PIL_to_numpy(upright, image_format))
