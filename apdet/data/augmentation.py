"""What is done to an image, and to its boxes, before the detector sees it."""

import detectron2.data.transforms as T  # noqa: N812
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.projects.point_rend import ColorAugSSDTransform
from fvcore.transforms.transform import NoOpTransform, PadTransform

from apdet.errors import UserError


def build_augmentation(cfg: CfgNode, is_train: bool) -> list[T.Augmentation | T.Transform]:
    """Detectron2's cropping, resizing and flipping, or a fixed size, and SSD's augmentation.

    Raises:
        UserError: a fixed size that is neither empty nor a height and a width.
    """
    augmentation = detection_utils.build_augmentation(cfg, is_train)
    key = "FIXED_SIZE_TRAIN" if is_train else "FIXED_SIZE_TEST"
    size = list(cfg.INPUT[key])
    if size:
        if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
            raise UserError(f"INPUT.{key} is {size}; give [height, width], or []")
        augmentation[0] = T.Resize(size)
    if not is_train:
        return augmentation
    if cfg.INPUT.CROP.ENABLED:
        augmentation.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
    if cfg.INPUT.SSD_AUGMENTATION:
        augmentation = [*ssd_augmentation(cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN), *augmentation]
    return augmentation


def ssd_augmentation(image_format: str, pixel_mean: list[float]) -> list:
    """Photometric distortion, expansion and crops with a minimum IoU (arXiv:1512.02325, 2.2).

    Args:
        image_format: "BGR" or "RGB".
        pixel_mean: fills what an expansion adds, in the order of ``image_format``.
    """
    return [
        ColorAugSSDTransform(image_format),
        RandomExpand(max_ratio=4.0, fill=pixel_mean),
        T.MinIoURandomCrop(),
    ]


class RandomExpand(T.Augmentation):
    """Half of the time, puts the image on a larger canvas, so that objects get smaller."""

    def __init__(self, max_ratio: float, fill: list[float]):
        """Args: ``max_ratio`` of the sides, at least 1, and the colour of the canvas."""
        super().__init__()
        self.max_ratio, self.fill = max_ratio, fill

    def get_transform(self, image: np.ndarray):
        if np.random.rand() < 0.5:
            return NoOpTransform()
        height, width = image.shape[:2]
        ratio = np.random.uniform(1, self.max_ratio)
        more_h, more_w = int((ratio - 1) * height), int((ratio - 1) * width)
        top, left = np.random.randint(more_h + 1), np.random.randint(more_w + 1)
        return _Expand(left, top, more_w - left, more_h - top, self.fill)


class _Expand(PadTransform):
    """fvcore's padding, with a fill of its own for each channel."""

    def __init__(self, x0: int, y0: int, x1: int, y1: int, fill: list[float]):
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
