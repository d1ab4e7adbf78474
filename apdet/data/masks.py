"""Reads and checks masks in COCO's format, because pycocotools trusts them."""

import math
import sys
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

_POLYGONS_DROPPED = (
    "polygons have fewer than three corners, or other coordinates than pixels, and were dropped"
)
# pycocotools draws every pixel of an edge, and crashes if their number does not fit an int.
_LARGEST_COORDINATE = 1e5
_MASK_DROPPED = "masks are malformed and were dropped; their boxes are kept"


def read_mask(segmentation: Any) -> tuple[Any, str]:
    """Read a mask: a list of polygons, or a run-length encoding (RLE).

    Malformed RLE must not reach pycocotools, which may write outside its memory or never return.

    Args:
        segmentation: "segmentation" of an annotation; None: there is no mask.

    Returns:
        The polygons or the compressed RLE, and the kind of flaw that was found. Both may be empty.
    """
    if segmentation in (None, []):
        return None, ""
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if _is_polygon(polygon)]
        return polygons or None, "" if len(polygons) == len(segmentation) else _POLYGONS_DROPPED
    rle = _read_rle(segmentation)
    return rle, _MASK_DROPPED if rle is None else ""


def _read_rle(segmentation: Any) -> dict[str, Any] | None:
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    if not (isinstance(size, list) and len(size) == 2 and all(type(v) is int for v in size)):
        return None
    height, width = size
    counts = segmentation.get("counts")
    runs = _decompress(counts) if isinstance(counts, str) else _as_runs(counts)
    if runs is None or min(size) < 1 or runs.min() < 0 or runs.sum() != height * width:
        return None
    if isinstance(counts, str):
        return {"size": size, "counts": counts}
    return mask_util.frPyObjects({"size": size, "counts": runs.tolist()}, height, width)


def _as_runs(counts: Any) -> np.ndarray | None:
    is_list = isinstance(counts, list) and all(type(v) is int and 0 <= v < 2**31 for v in counts)
    return np.array(counts, dtype=np.int64) if is_list and counts else None


def _decompress(text: str) -> np.ndarray | None:
    """Decode the runs (n,) int64 of a compressed RLE; None if it is not one.

    A run has groups of five bits, the lowest first. A character is 48 plus a group, plus 32 if
    another group follows. The highest bit of the last group is the sign. From the fourth run on,
    the difference to the run before the previous one is stored.
    """
    if not text or not text.isascii():
        return None
    groups = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) - 48
    is_last = groups & 32 == 0
    if groups.min() < 0 or groups.max() > 63 or not is_last[-1]:
        return None
    starts = np.flatnonzero(np.append(True, is_last[:-1]))
    places = np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))
    if places.max() > 6:  # more than 35 bits
        return None
    runs = np.add.reduceat((groups & 31) << 5 * places, starts)
    negative = groups[is_last] & 16 != 0
    runs[negative] -= np.int64(1) << 5 * (places[is_last][negative] + 1)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs


def _is_polygon(polygon: Any) -> bool:
    return (
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and set(map(type, polygon)) <= {int, float}
        and max(map(abs, polygon)) <= _LARGEST_COORDINATE
        and not math.isnan(sum(polygon))  # the maximum may overlook nan
    )


def is_finite(value: Any) -> bool:
    """Whether a value from a JSON file is a number that a float can hold."""
    # math.isfinite raises an error for an int that is too large for a float.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
