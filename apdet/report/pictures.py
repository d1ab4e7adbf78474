"""Pictures of detections beside the truth."""

import logging
import math
import os
import textwrap
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from apdet.evaluation.matching import Detections, Objects, read_objects
from apdet.evaluation.operating_point import best_f1_threshold
from apdet.evaluation.predictions import read_predictions
from apdet.report.tile import DETECTED, IGNORED, TRUE, draw_tile

logger = logging.getLogger(__name__)

TOP_K = 5  # detections an image where no threshold can be chosen
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
) -> Path | None:
    """Draw evenly spaced images of a data set with their detections and true boxes.

    Scores of a ranking are no probabilities: by default the detections shown are those above the
    threshold of best F1 on this data set (see `best_f1_threshold`), or the best of each image
    if there is no truth to choose it by. The title says which.

    Args:
        dataset_name: as registered.
        predictions_json: ``coco_instances_results.json`` of Detectron2's COCOEvaluator.
        out_png: the picture to write.
        num_images: how many images, if there are as many.
        score_threshold: show the detections of at least this score.

    Returns:
        The picture's path; None, and no picture, if the data set or its predictions are missing.

    Raises:
        UserError: predictions that are not of this data set.
    """
    if not os.path.isfile(predictions_json):
        logger.warning(f"{predictions_json}: no predictions to draw")
        return None
    dataset_dicts = DatasetCatalog.get(dataset_name)
    if not dataset_dicts:
        logger.warning(f"{dataset_name}: no images to draw")
        return None
    metadata = MetadataCatalog.get(dataset_name)
    objects = read_objects(dataset_dicts)
    detections = read_predictions(predictions_json, metadata, set(objects))
    detections, title = _select(detections, objects, score_threshold)

    shown = _evenly_spaced(dataset_dicts, num_images)
    tiles, captions = [], []
    for image in shown:
        image_id = image["image_id"]
        pixels = read_image(image["file_name"], format="RGB")
        tiles.append(
            draw_tile(pixels, detections.get(image_id), objects[image_id], metadata.thing_classes)
        )
        captions.append(str(image_id))
    legend = _legend([objects[image["image_id"]] for image in shown])
    figure = _compose(tiles, captions, f"{dataset_name}: {title}", legend)
    figure.savefig(out_png)
    return Path(out_png)


def _evenly_spaced(items: list[Any], num: int) -> list[Any]:
    num = min(num, len(items))
    return [items[i * len(items) // num] for i in range(num)]


def _select(
    detections: dict[Hashable, Detections],
    objects: dict[Hashable, Objects],
    score_threshold: float | None,
) -> tuple[dict[Hashable, Detections], str]:
    """The detections to show, and words on which they are."""
    title = f"detections with score ≥ {score_threshold}"
    if score_threshold is None:
        best = best_f1_threshold(detections, objects)
        if best is None:
            selected = {key: _top_k(found) for key, found in detections.items()}
            return selected, f"the {TOP_K} best detections of each image"
        score_threshold, f1 = best
        why = f"where F1 at IoU 0.5 is best ({f1:.2f})"
        title = f"detections with score ≥ {score_text(score_threshold)}, {why}"
    return {key: _above(found, score_threshold) for key, found in detections.items()}, title


def score_text(score: float) -> str:
    """A score with two digits of its distance to 0 or 1: by ranking all may lie close to one."""
    distance = min(score, 1 - score)
    return f"{score:.{1 - math.floor(math.log10(distance))}f}" if distance > 0 else f"{score:g}"


def _top_k(found: Detections) -> Detections:
    order = np.argsort(-found.scores, kind="stable")[:TOP_K]
    return Detections(*(values[order] for values in found))


def _above(found: Detections, threshold: float) -> Detections:
    keep = found.scores >= threshold
    return Detections(*(values[keep] for values in found))


def _compose(
    tiles: list[np.ndarray], captions: list[str], title: str, legend: list[Line2D]
) -> Figure:
    """Tiles in rows below a title and a legend, pixel for pixel."""
    columns = min(MAX_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    cell_width = max(tile.shape[1] for tile in tiles) + GAP
    cell_height = max(tile.shape[0] for tile in tiles) + CAPTION + GAP
    width = max(columns * cell_width + GAP, MIN_WIDTH)
    lines = textwrap.wrap(title, width // 10)
    header = LINE * len(lines) + LEGEND
    height = header + rows * cell_height

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    at = {"va": "top", "parse_math": False}  # a name with a "$" is no formula
    figure.text(GAP / width, 1 - GAP / height, "\n".join(lines), fontsize=12, **at)
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
        caption = caption[: cell_width // 8]  # not into the next column
        figure.text(left / width, 1 - top / height, caption, fontsize=9, color="0.3", **at)
        figure.figimage(tile, left, height - top - CAPTION - tile.shape[0])
    return figure


def _legend(objects: list[Objects]) -> list[Line2D]:
    """What the colours of a picture with these objects mean."""
    entries = [(DETECTED, "-", "detected, with class and score")]
    if any((~there.ignored).any() for there in objects):
        entries.append((TRUE, "--", "true"))
    if any(there.ignored.any() for there in objects):
        entries.append((IGNORED, ":", "difficult or crowd: neither hit nor miss"))
    return [
        Line2D([], [], color=c, linestyle=s, linewidth=2.5, label=text) for c, s, text in entries
    ]
