"""Draws what was detected in an image."""

import os

import numpy as np
from detectron2.structures import Instances
from detectron2.utils.colormap import colormap
from detectron2.utils.visualizer import GenericMask, Visualizer
from PIL import Image

from apdet.evaluation.matching import Detections
from apdet.files import whole_file
from apdet.report.selection import MAX_BOXES
from apdet.report.tile import TILE_SIZE, draw_labels

# Pictures of these kinds keep the name of the image; others are written as PNG.
_JPEG, _PNG = (".jpg", ".jpeg"), (".png",)


def picture_name(name: str) -> str:
    """The name of the picture of an image."""
    return name if name.lower().endswith((*_JPEG, *_PNG)) else f"{name}.png"


def write_picture(path: str, pixels: np.ndarray, found: Instances, class_names: list[str]) -> None:
    """Draw the detections in an image, and write the picture. Its folder is made.

    Args:
        path: the file; the suffix says the format.
        pixels: (H, W, 3) uint8, RGB.
        found: the detections, the best first.
        class_names: the name of each class.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    picture = Image.fromarray(draw_picture(pixels, found, class_names))
    with whole_file(path) as file:
        if path.lower().endswith(_JPEG):
            picture.save(file, format="JPEG", quality=90)
        else:
            picture.save(file, format="PNG", compress_level=1)


def draw_picture(pixels: np.ndarray, found: Instances, class_names: list[str]) -> np.ndarray:
    """Draw the best `MAX_BOXES` detections in an image: boxes, masks and keypoints.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        found: the detections, the best first.
        class_names: the name of each class.

    Returns:
        (f H, f W, 3) uint8, RGB. The integer f is 1, except for images so small that labels would
        hide them.
    """
    found = found[:MAX_BOXES]
    factor = max(1, round(TILE_SIZE / max(pixels.shape[:2])))
    visualizer = Visualizer(_enlarged(pixels, factor))
    height, width = visualizer.img.shape[:2]
    palette = colormap(rgb=True, maximum=1)
    colors = [palette[k % len(palette)] for k in found.pred_classes.tolist()]
    boxes = factor * found.pred_boxes.tensor.numpy().astype(np.float64)
    masks = keypoints = None
    if found.has("pred_masks"):
        masks = [
            GenericMask(_enlarged(mask, factor), height, width)
            for mask in found.pred_masks.numpy().astype(np.uint8)
        ]
    if found.has("pred_keypoints"):
        keypoints = found.pred_keypoints.numpy() * (factor, factor, 1)
    visualizer.overlay_instances(
        boxes=boxes, masks=masks, keypoints=keypoints, assigned_colors=colors, alpha=0.4
    )
    detections = Detections(boxes, found.scores.double().numpy(), found.pred_classes.numpy())
    font_size = max(9.0, np.sqrt(height * width) / 90)  # in points; grows with the picture
    draw_labels(visualizer, detections, class_names, colors=colors, font_size=font_size)
    return visualizer.output.get_image()


def _enlarged(pixels: np.ndarray, factor: int) -> np.ndarray:
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
