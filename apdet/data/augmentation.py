"""The resize and the random augmentation of images and their boxes."""

from collections.abc import Sequence

import detectron2.data.transforms as T  # noqa: N812
import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.projects.point_rend import ColorAugSSDTransform
from fvcore.transforms.transform import NoOpTransform, PadTransform

from apdet.errors import ArgumentError

FLIPS = ("none", "horizontal", "vertical")
CROPS = ("absolute", "absolute_range", "relative", "relative_range")


def _training_config(cfg: CfgNode) -> dict:
    node = cfg.INPUT
    return {
        "min_size": node.MIN_SIZE_TRAIN,
        "max_size": node.MAX_SIZE_TRAIN,
        "sample_style": node.MIN_SIZE_TRAIN_SAMPLING,
        "fixed_size": node.FIXED_SIZE_TRAIN,
        "flip": node.RANDOM_FLIP,
        "crop_type": node.CROP.TYPE if node.CROP.ENABLED else None,
        "crop_size": node.CROP.SIZE,
        "first": ssd_augmentation(node.FORMAT, cfg.MODEL.PIXEL_MEAN)
        if node.SSD_AUGMENTATION
        else [],
    }


@configurable(from_config=_training_config)
def training_augmentation(
    *,
    min_size: int | Sequence[int] = 800,
    max_size: int = 1333,
    sample_style: str = "choice",
    fixed_size: Sequence[int] = (),
    flip: str = "none",
    crop_type: str | None = None,
    crop_size: Sequence[float] = (),
    first: Sequence[T.Augmentation] = (),
) -> list[T.Augmentation]:
    """Build the augmentation of training images.

    An image goes through ``first``, a random crop, a resize and a random flip, in this order.
    ``training_augmentation(cfg)`` takes the arguments from a config.

    Args:
        min_size: the short side in pixels, or several values for ``sample_style``.
        max_size: limit of the long side, in pixels.
        sample_style: "choice" draws one of ``min_size`` for each image; "range" draws a number
            between the two values of ``min_size``.
        fixed_size: [height, width] in pixels, in place of ``min_size`` and ``max_size``.
        flip: "horizontal", "vertical" or "none".
        crop_type: the type of Detectron2's ``RandomCrop``; None: no crop.
        crop_size: the height and width of the crop, in the unit of ``crop_type``.
        first: augmentations to apply first, for example :func:`ssd_augmentation`.

    Raises:
        UserError: a wrong ``fixed_size``, ``flip`` or ``crop_type``.
    """
    owner = "training_augmentation"
    _check_choice(owner, "flip", flip, FLIPS)
    augmentation = list(first)
    if crop_type is not None:
        _check_choice(owner, "crop_type", crop_type, CROPS)
        augmentation.append(T.RandomCrop(crop_type, crop_size))
    if fixed_size:
        augmentation.append(_resize_to(fixed_size, owner))
    else:
        augmentation.append(ResizeShortestEdge(min_size, max_size, sample_style))
    if flip != "none":
        is_horizontal = flip == "horizontal"
        augmentation.append(T.RandomFlip(horizontal=is_horizontal, vertical=not is_horizontal))
    return augmentation


def _test_config(cfg: CfgNode) -> dict:
    node = cfg.INPUT
    return {
        "min_size": node.MIN_SIZE_TEST,
        "max_size": node.MAX_SIZE_TEST,
        "fixed_size": node.FIXED_SIZE_TEST,
    }


@configurable(from_config=_test_config)
def evaluation_augmentation(
    *, min_size: int = 800, max_size: int = 1333, fixed_size: Sequence[int] = ()
) -> list[T.Augmentation]:
    """Build the resize of test images.

    ``evaluation_augmentation(cfg)`` takes the arguments from a config.

    Args:
        min_size: the short side, in pixels; 0: no resize.
        max_size: limit of the long side, in pixels.
        fixed_size: [height, width] in pixels, in place of ``min_size`` and ``max_size``.

    Raises:
        UserError: ``fixed_size`` is neither empty nor a height and a width.
    """
    if fixed_size:
        return [_resize_to(fixed_size, "evaluation_augmentation")]
    return [ResizeShortestEdge(min_size, max_size)]


def _resize_to(size: Sequence[int], owner: str) -> T.Augmentation:
    size = list(size)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ArgumentError(
            owner, "{fixed_size} is {value}; give [height, width], or []", value=size
        )
    return T.Resize(size)


def _check_choice(owner: str, argument: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        template = f"{{{argument}}} is {{value!r}}; choose one of {{choices}}"
        raise ArgumentError(owner, template, value=value, choices=choices)


def ssd_augmentation(image_format: str, pixel_mean: Sequence[float]) -> list[T.Augmentation]:
    """SSD's photometric distortion, expansion and crops (arXiv:1512.02325, section 2.2).

    Args:
        image_format: "BGR" or "RGB".
        pixel_mean: the colour that fills an expanded image, in the order of ``image_format``.

    Raises:
        UserError: another ``image_format``, whose colours cannot be distorted.
    """
    if image_format not in ("BGR", "RGB"):
        raise ArgumentError(
            "ssd_augmentation",
            "{image_format} is {value!r}, but SSD's augmentation distorts colours; choose BGR or "
            "RGB, or leave this augmentation out (INPUT.SSD_AUGMENTATION: False)",
            value=image_format,
        )
    return [
        ColorAugSSDTransform(image_format),
        RandomExpand(max_ratio=4.0, fill=pixel_mean),
        T.MinIoURandomCrop(),
    ]


class ResizeShortestEdge(T.ResizeShortestEdge):
    """Detectron2's resize, except that a side of a very thin image is never rounded to 0 pixels."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        transform = super().get_transform(image)
        if isinstance(transform, T.ResizeTransform):
            transform.new_h, transform.new_w = max(transform.new_h, 1), max(transform.new_w, 1)
        return transform


class RandomExpand(T.Augmentation):
    """Puts half of the images on a larger canvas, which makes objects smaller."""

    def __init__(self, max_ratio: float, fill: Sequence[float]):
        """Set up the expansion.

        Args:
            max_ratio: the largest ratio of a side of the canvas to the same side of the image.
            fill: the colour of the canvas, one value for each channel.
        """
        super().__init__()
        self.max_ratio, self.fill = max_ratio, fill

    def get_transform(self, image: np.ndarray) -> T.Transform:
        if np.random.rand() < 0.5:
            return NoOpTransform()
        height, width = image.shape[:2]
        ratio = np.random.uniform(1, self.max_ratio)
        more_h, more_w = int((ratio - 1) * height), int((ratio - 1) * width)
        top, left = np.random.randint(more_h + 1), np.random.randint(more_w + 1)
        return _Expand(left, top, more_w - left, more_h - top, self.fill)


class _Expand(PadTransform):
    """fvcore's padding with one fill value for each channel."""

    def __init__(self, x0: int, y0: int, x1: int, y1: int, fill: Sequence[float]):
        super().__init__(x0, y0, x1, y1)
        self.fill = fill

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        height, width = img.shape[:2]
        canvas = np.empty(
            (self.y0 + height + self.y1, self.x0 + width + self.x1, *img.shape[2:]), img.dtype
        )
        canvas[:] = self.fill
        canvas[self.y0 : self.y0 + height, self.x0 : self.x0 + width] = img
        return canvas
