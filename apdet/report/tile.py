"""Draws one image with its detections and ground truth."""

from collections.abc import Sequence

import numpy as np
from detectron2.utils.visualizer import Visualizer
from PIL import Image

from apdet.evaluation.matching import Detections, Objects
from apdet.text import one_line

TILE_SIZE = 440  # pixels of the longer side, so that labels are legible on small images
DETECTION_COLOR, GROUND_TRUTH_COLOR, IGNORED_COLOR = "#ff8c1a", "#00e5ff", "#d0d0d0"
_FONT_SIZE = 9  # points


def draw_tile(
    pixels: np.ndarray, detections: Detections | None, ground_truth: Objects, class_names: list[str]
) -> np.ndarray:
    """Draw an image, resized to the size of a tile, with boxes and labels.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        detections: they are drawn as solid boxes with class and score. None: no detections.
        ground_truth: its objects are drawn as dashed boxes, and ignored objects as dotted boxes.
        class_names: the name of each class.

    Returns:
        (h, w, 3) uint8, RGB. The longer side is `TILE_SIZE` pixels.
    """
    height, width = pixels.shape[:2]
    scale = TILE_SIZE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    visualizer = Visualizer(np.asarray(resized))
    if detections is not None:
        for box in detections.boxes:
            visualizer.draw_box(scale * box, alpha=1, edge_color=DETECTION_COLOR)
    # Ground truth is drawn last: a detection in the same place shows through the gaps.
    for box, ignored in zip(ground_truth.boxes, ground_truth.ignored, strict=True):
        color, style = (IGNORED_COLOR, ":") if ignored else (GROUND_TRUTH_COLOR, (0, (4, 4)))
        visualizer.draw_box(scale * box, alpha=1, edge_color=color, line_style=style)
    if detections is not None:
        scaled = detections._replace(boxes=scale * detections.boxes)
        draw_labels(visualizer, scaled, class_names, colors=[DETECTION_COLOR] * len(scaled.boxes))
    return visualizer.output.get_image()


def draw_labels(
    visualizer: Visualizer,
    detections: Detections,
    class_names: Sequence[str],
    *,
    colors: Sequence,
    font_size: float = _FONT_SIZE,
) -> None:
    """Put a label beside each detection, where it overlaps earlier labels the least.

    Args:
        visualizer: draws the labels, at its scale 1.
        detections: their boxes are in pixels of the picture.
        class_names: the name of each class.
        colors: the color of each label.
        font_size: in points.
    """
    output = visualizer.output
    limit = np.array([output.width, output.height], dtype=np.float64)
    placed = np.empty((0, 4))  # XYXY of the earlier labels
    for i in np.argsort(-detections.scores, kind="stable"):
        name = one_line(class_names[detections.classes[i]]).replace("$", r"\$")  # not a formula
        label = f"{name} {detections.scores[i]:.2f}"
        visualizer.draw_text(
            label, (0, 0), font_size=font_size, color=colors[i], horizontal_alignment="left"
        )
        text = output.ax.texts[-1]
        extent = text.get_window_extent(output.canvas.get_renderer())
        size = np.array([extent.width + 2, extent.height + 2])
        corners = _label_corners(detections.boxes[i], size)
        corners = corners.clip(0, np.maximum(limit - size, 0))  # inside the picture
        best = corners[_overlap(corners, size, placed).argmin()]
        text.set_position(best)
        placed = np.vstack([placed, [*best, *(best + size)]])


def _label_corners(box: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Find places (C, 2) for the upper left corner of a label, the best place first."""
    (x0, y0, x1, y1), (w, h) = box, size
    outside = [(x0, y0 - h), (x0, y1), (x1 - w, y0 - h), (x1 - w, y1), (x1, y0), (x0 - w, y0)]
    inside = [(x0, y0), (x0, y1 - h)]
    return np.array([*outside, *inside])


def _overlap(corners: np.ndarray, size: np.ndarray, placed: np.ndarray) -> np.ndarray:
    """The area (C,) by which a label at each of the corners overlaps the placed labels."""
    low = np.maximum(corners[:, None], placed[:, :2])  # (C, P, 2)
    high = np.minimum(corners[:, None] + size, placed[:, 2:])
    return (high - low).clip(0).prod(axis=2).sum(axis=1)
