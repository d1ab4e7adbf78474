"""Draws detections and ground truth on images of a data set."""

import logging
import os
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from apdet.data.image import read_image
from apdet.evaluation.matching import Detections, Objects
from apdet.files import whole_file
from apdet.report.selection import (
    MAX_BOXES,
    best_detections,
    is_crowded,
    largest_objects,
    read_evaluated,
    score_text,
    select,
)
from apdet.report.tile import DETECTION_COLOR, GROUND_TRUTH_COLOR, IGNORED_COLOR, draw_tile

__all__ = ["draw_detections", "score_text"]

logger = logging.getLogger(__name__)

MAX_COLUMNS = 4
MIN_WIDTH = 700
GAP, CAPTION, LINE, LEGEND = 12, 20, 22, 44  # pixels
DPI = 100


def draw_detections(
    dataset_name: str,
    predictions_json: str | os.PathLike,
    out_png: str | os.PathLike,
    *,
    num_images: int = 12,
    score_threshold: float | None = None,
    validation: tuple[str, str | os.PathLike] | None = None,
) -> Path | None:
    """Draw evenly spaced images of a data set with their detections and ground truth.

    A detector trained by ranking does not give probabilities, so no fixed threshold suits all. By
    default the picture shows the detections above the threshold with the best F1 on the validation
    set, or on this data set if there is none (see `best_f1_threshold`). Without ground truth to
    choose a threshold, it shows the detections with the highest scores of each image. Of an image
    with very many boxes, it shows the best detections and the largest objects. The title says which
    boxes are shown.

    Args:
        dataset_name: the name of a registered data set.
        predictions_json: ``coco_instances_results.json`` of Detectron2's COCOEvaluator.
        out_png: the picture to write.
        num_images: the maximum number of images.
        score_threshold: show the detections with at least this score. None: the default, see above.
        validation: the name of the validation set, and its predictions.

    Returns:
        The path of the picture. None if there are no images or no predictions; no picture is
        written then.

    Raises:
        UserError: the predictions are on another data set.
    """
    if not os.path.isfile(predictions_json):
        logger.warning(f"{predictions_json}: no predictions to draw")
        return None
    dataset_dicts = DatasetCatalog.get(dataset_name)
    if not dataset_dicts:
        logger.warning(f"{dataset_name}: no images to draw")
        return None
    metadata = MetadataCatalog.get(dataset_name)
    found = read_evaluated(dataset_name, predictions_json)
    objects = found.objects
    detections, title = select(found, score_threshold=score_threshold, validation=validation)

    shown = _evenly_spaced(dataset_dicts, num_images)
    ids = [image["image_id"] for image in shown]
    tiles = [
        _draw_image(image, detections.get(i), objects[i], metadata.thing_classes)
        for i, image in zip(ids, shown, strict=True)
    ]
    if any(is_crowded(detections.get(i), objects[i]) for i in ids):
        title += f"; at most the {MAX_BOXES} best detections and {MAX_BOXES} largest objects"
    legend = _legend([objects[i] for i in ids])
    figure = _compose(tiles, list(map(str, ids)), f"{dataset_name}: {title}", legend)
    with whole_file(out_png) as file:
        figure.savefig(file, format="png")
    return Path(out_png)


def _draw_image(
    image: dict[str, Any],
    detections: Detections | None,
    ground_truth: Objects,
    class_names: list[str],
) -> np.ndarray:
    pixels = read_image(image["file_name"], "RGB", bits=image.get("bits"))
    return draw_tile(
        pixels, best_detections(detections), largest_objects(ground_truth), class_names
    )


def _evenly_spaced(items: list[Any], num: int) -> list[Any]:
    num = min(num, len(items))
    return [items[i * len(items) // num] for i in range(num)]


def _compose(
    tiles: list[np.ndarray], captions: list[str], title: str, legend: list[Line2D]
) -> Figure:
    """Arrange tiles in rows below a title and a legend, without resampling them."""
    columns = min(MAX_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    cell_width = max(tile.shape[1] for tile in tiles) + GAP
    cell_height = max(tile.shape[0] for tile in tiles) + CAPTION + GAP
    width = max(columns * cell_width + GAP, MIN_WIDTH)
    lines = textwrap.wrap(title, width // 10)
    header = LINE * len(lines) + LEGEND
    height = header + rows * cell_height

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    style: dict[str, Any] = {"va": "top", "parse_math": False}  # a name may contain "$"
    figure.text(GAP / width, 1 - GAP / height, "\n".join(lines), fontsize=12, **style)
    legend_top = 1 - (GAP + LINE * len(lines)) / height
    figure.legend(
        handles=legend,
        loc="upper left",
        bbox_to_anchor=(GAP / width, legend_top),
        ncols=len(legend),
        fontsize=10,
        frameon=False,
        borderaxespad=0,
        borderpad=0.2,
    )
    for i, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        left = GAP + i % columns * cell_width
        top = header + i // columns * cell_height
        caption = caption[: cell_width // 8]  # a longer one would reach into the next column
        figure.text(left / width, 1 - top / height, caption, fontsize=9, color="0.3", **style)
        figure.figimage(tile, left, height - top - CAPTION - tile.shape[0])
    return figure


def _legend(objects: list[Objects]) -> list[Line2D]:
    """The legend of a picture with these objects: what each kind of box means."""
    entries: list[tuple[str, LineStyleType, str]] = [
        (DETECTION_COLOR, "-", "detected, with class and score")
    ]
    if any((~ground_truth.ignored).any() for ground_truth in objects):
        entries.append((GROUND_TRUTH_COLOR, "--", "ground truth"))
    if any(ground_truth.ignored.any() for ground_truth in objects):
        entries.append((IGNORED_COLOR, ":", "difficult or crowd: ignored"))
    return [
        Line2D([], [], color=color, linestyle=style, linewidth=2.5, label=label)
        for color, style, label in entries
    ]
