"""Draws the images of the `digits` data set."""

from typing import NamedTuple

import cv2
import numpy as np
from sklearn.datasets import load_digits, load_sample_images
from sklearn.model_selection import train_test_split

MAX_DIGITS = 5  # number of digits in an image
SIDES = (0.16, 0.55)  # smallest and largest side of a scan, as a fraction of the image's side
MAX_OVERLAP = 0.1  # intersection of two boxes, as a fraction of the smaller box
MAX_TRIES = 10  # number of places that are tried for a digit
MIN_CONTRAST = 70  # between a digit's colour and the photograph behind it, in mean grey levels


class Source(NamedTuple):
    """The scans and photographs from which the images of one split are made."""

    scans: np.ndarray  # (S, 8, 8) float, 0 to 1
    labels: np.ndarray  # (S,) int
    photographs: list[np.ndarray]  # (H, W, 3) uint8, BGR


def split_sources() -> dict[str, Source]:
    """Divide scans and photographs between the training and the test set.

    Training gets four fifths of the scans of each class, and the left 70% of each photograph.

    Returns:
        The sources of "train" and "test".
    """
    digits = load_digits()
    parts = train_test_split(
        np.arange(len(digits.target)), test_size=0.2, random_state=0, stratify=digits.target
    )
    photographs = [photograph[..., ::-1] for photograph in load_sample_images().images]
    sources = {}
    for name, part in zip(("train", "test"), parts, strict=True):
        halves = []
        for photograph in photographs:
            cut = round(0.7 * photograph.shape[1])
            halves.append(photograph[:, :cut] if name == "train" else photograph[:, cut:])
        sources[name] = Source(digits.images[part] / 16, digits.target[part], halves)
    return sources


def draw_image(
    source: Source, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[int, list[int]]]]:
    """Draw one image.

    Args:
        source: the scans and photographs to draw from.
        size: side of the image, in pixels.
        rng: the generator of all random numbers.

    Returns:
        The image, (size, size, 3) uint8 BGR, and (class, [x0, y0, x1, y1]) of each digit.
    """
    image = _background(source.photographs[rng.integers(len(source.photographs))], size, rng)
    objects: list[tuple[int, list[int]]] = []
    for _ in range(rng.integers(1, MAX_DIGITS + 1)):
        index = rng.integers(len(source.scans))
        side = int(rng.uniform(*SIDES) * size)
        scan = cv2.resize(source.scans[index], (side, side), interpolation=cv2.INTER_CUBIC)
        alpha = scan.clip(0, 1)
        rows, columns = np.nonzero(alpha > 0.25)
        extent = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        for x, y in rng.integers(0, size - side + 1, size=(MAX_TRIES, 2)):
            box = [int(v) for v in np.add(extent, (x, y, x, y))]
            if all(_overlap(box, other) <= MAX_OVERLAP for _, other in objects):
                _blend(image[y : y + side, x : x + side], alpha, rng)
                objects.append((int(source.labels[index]), box))
                break
    return image.round().astype(np.uint8), objects


def _background(photograph: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    height, width = photograph.shape[:2]
    side = int(rng.uniform(0.4, 1.0) * min(height, width))
    y, x = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    crop = photograph[y : y + side, x : x + side]
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA).astype(np.float64)


def _blend(patch: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> None:
    """Paint a digit in a random colour over ``patch``, in place."""
    colour = rng.uniform(0, 255, size=3)
    behind = patch.mean()
    if abs(colour.mean() - behind) < MIN_CONTRAST:
        colour = (colour + (2 * MIN_CONTRAST if behind < 128 else -2 * MIN_CONTRAST)).clip(0, 255)
    patch += alpha[..., None] * (colour - patch)


def _overlap(a: list[int], b: list[int]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
