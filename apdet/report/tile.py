"""One image with its detections and true boxes."""

import numpy as np
from detectron2.utils.visualizer import Visualizer
from PIL import Image

from apdet.evaluation.matching import Detections, Objects

TILE_SIZE = 440  # pixels of the longer side, whatever the image's: labels keep legible
DETECTED, TRUE, IGNORED = "#ff8c1a", "#00e5ff", "#d0d0d0"
_FONT_SIZE = 9  # points


def draw_tile(
    pixels: np.ndarray, found: Detections | None, there: Objects, class_names: list[str]
) -> np.ndarray:
    """Draw an image at the size of a tile.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        found: solid boxes with class and score; None for none.
        there: dashed boxes; dotted ones for those to ignore.
        class_names: of the classes.

    Returns:
        (h, w, 3) uint8, of which the longer side is `TILE_SIZE`.
    """
    height, width = pixels.shape[:2]
    scale = TILE_SIZE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    visualizer = Visualizer(np.asarray(resized))
    if found is not None:
        for box in found.boxes:
            visualizer.draw_box(scale * box, alpha=1, edge_color=DETECTED)
    # On top, so that the solid box shows through the gaps of a true one in the same place.
    for box, ignored in zip(there.boxes, there.ignored, strict=True):
        color, style = (IGNORED, ":") if ignored else (TRUE, (0, (4, 4)))
        visualizer.draw_box(scale * box, alpha=1, edge_color=color, line_style=style)
    if found is not None:
        _draw_labels(visualizer, found, class_names, scale)
    return visualizer.output.get_image()


def _draw_labels(
    visualizer: Visualizer, found: Detections, class_names: list[str], scale: float
) -> None:
    """Label each detection beside its box, where it covers the least of the labels before it."""
    output = visualizer.output
    limit = np.array([output.width, output.height], dtype=np.float64)
    placed = np.empty((0, 4))
    for i in np.argsort(-found.scores, kind="stable"):
        name = class_names[found.classes[i]].replace("$", r"\$")  # not a formula of Matplotlib's
        label = f"{name} {found.scores[i]:.2f}"
        visualizer.draw_text(
            label, (0, 0), font_size=_FONT_SIZE, color=DETECTED, horizontal_alignment="left"
        )
        text = output.ax.texts[-1]
        extent = text.get_window_extent(output.canvas.get_renderer())
        size = np.array([extent.width + 2, extent.height + 2])
        x0, y0, x1, y1 = scale * found.boxes[i]
        w, h = size
        corners = [(x0, y0 - h), (x0, y1), (x1 - w, y0 - h), (x1 - w, y1), (x1, y0), (x0 - w, y0)]
        corners += [(x0, y0), (x0, y1 - h)]  # inside the box at last
        corners = np.array(corners).clip(0, np.maximum(limit - size, 0))  # (C, 2)
        best = corners[_overlap(corners, size, placed).argmin()]
        text.set_position(best)
        placed = np.vstack([placed, [*best, *(best + size)]])


def _overlap(corners: np.ndarray, size: np.ndarray, placed: np.ndarray) -> np.ndarray:
    """How much (C,) of the placed labels a label of this size would cover at each corner."""
    low = np.maximum(corners[:, None], placed[:, :2])  # (C, P, 2)
    high = np.minimum(corners[:, None] + size, placed[:, 2:])
    return (high - low).clip(0).prod(axis=2).sum(axis=1)
