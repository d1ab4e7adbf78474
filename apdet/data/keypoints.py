"""Reads keypoints in COCO's format."""

import re
from typing import Any, NamedTuple

from apdet.data.masks import is_finite
from apdet.errors import UserError

_SIDES = {"left": "right", "right": "left"}
_COLOUR = (102, 204, 255)  # of the lines between keypoints in pictures


class Skeleton(NamedTuple):
    """The keypoints of the objects of a data set, as Detectron2's metadata has them."""

    names: list[str]
    flip_pairs: list[tuple[str, str]]  # names that change places in a mirror image
    lines: list[tuple[str, str, tuple[int, int, int]]]  # two names and the colour of their line


def read_skeleton(categories: list[dict[str, Any]], where: str) -> Skeleton | None:
    """Read the keypoints of the categories. Those that have keypoints must have the same.

    Keypoints whose names differ in "left" and "right" are taken for a pair.

    Args:
        categories: "categories" of the file.
        where: the name of the file.

    Returns:
        None if no category has keypoints.

    Raises:
        UserError: the names or the lines are malformed, or two categories have other keypoints.
    """
    described = [category for category in categories if category.get("keypoints")]
    if not described:
        return None
    names, edges = described[0]["keypoints"], described[0].get("skeleton") or []
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not is_list or len(set(names)) < len(names):
        raise UserError(f'{where}: "keypoints" is {names!r}; write a list of different names')
    if any(category["keypoints"] != names for category in described):
        raise UserError(f"{where}: two categories have other keypoints; a model has one list")
    try:
        lines = [(names[a - 1], names[b - 1], _COLOUR) for a, b in edges if min(a, b) > 0]
    except (TypeError, ValueError, IndexError) as error:
        raise UserError(
            f'{where}: "skeleton" is {edges!r}; write pairs of numbers from 1 to {len(names)}'
        ) from error
    pairs = [(name, _mirrored(name)) for name in names if re.search("left", name, re.IGNORECASE)]
    return Skeleton(names, [pair for pair in pairs if pair[1] in names], lines)


def _mirrored(name: str) -> str:
    """The name of a keypoint on the other side."""

    def other(match: re.Match) -> str:
        side = _SIDES[match[0].casefold()]
        if match[0].istitle():
            return side.title()
        return side.upper() if match[0].isupper() else side

    return re.sub("left|right", other, name, flags=re.IGNORECASE)


def read_keypoints(values: Any, num_keypoints: int, where: str) -> list[float]:
    """Read x, y and the visibility of each keypoint of an object.

    Args:
        values: "keypoints" of an annotation; None or empty: no keypoint is labelled.
        num_keypoints: number of keypoints of the data set.
        where: the file and the annotation, for errors.

    Returns:
        3 * ``num_keypoints`` numbers. COCO counts the centre of the first pixel as 0, but
        Detectron2 as 0.5, as it is for boxes.

    Raises:
        UserError: the number of values is wrong, they are not finite numbers, or a visibility is
            not 0, 1 or 2.
    """
    if not values:
        return [0.0] * (3 * num_keypoints)
    is_list = isinstance(values, list) and all(is_finite(value) for value in values)
    if not is_list or len(values) != 3 * num_keypoints or not set(values[2::3]) <= {0, 1, 2}:
        raise UserError(
            f'{where}: "keypoints" is {str(values)[:80]}; write x, y and the visibility 0, 1 or 2 '
            f"of each of the {num_keypoints} keypoints"
        )
    return [float(v) if i % 3 == 2 else v + 0.5 for i, v in enumerate(values)]
