"""Turns the scores of detections into probabilities.

A ranking loss orders detections, and says nothing about how likely one is right. Beta calibration
(Kull et al., AISTATS 2017) is a strictly increasing map, so the order stays, and with it the AP of
each class:

    probability = sigmoid(a log s - b log(1 - s) + c),    a >= 0, b >= 0, a + b > 0

A millionth of the score takes the place of a millionth of the probability. Else many scores near 1,
which ranking losses give, would be rounded to the same probability 1, and lose their order.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torchvision.ops import box_iou

from apdet.evaluation.matching import Detections, Objects

# A class with fewer right or fewer wrong detections has no map of its own.
MIN_OF_EACH = 50
# The weakest regularisation that keeps the slopes finite if scores separate right from wrong.
_STRENGTH = 1e4
_SMALLEST = 1e-12
_SHARE_OF_SCORE = 1e-6


@dataclass(frozen=True)
class BetaMap:
    """A map from scores to probabilities."""

    a: float
    b: float
    c: float

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """The probabilities (D,) float64 of scores (D,) in [0, 1]."""
        up, down = _features(scores)
        probabilities = 1 / (1 + np.exp(-(self.a * up + self.b * down + self.c)))
        return (1 - _SHARE_OF_SCORE) * probabilities + _SHARE_OF_SCORE * scores


@dataclass(frozen=True)
class Calibration:
    """Maps for all detections: of each class with enough of them, and one for the others.

    Attributes:
        overall: the map of all classes together.
        of_classes: {number of the class: its own map}.
    """

    overall: BetaMap
    of_classes: Mapping[int, BetaMap] = field(default_factory=dict)

    def __call__(self, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """The probabilities (D,) float64 of detections with scores (D,) and classes (D,)."""
        probabilities = self.overall(scores)
        for k, own in self.of_classes.items():
            is_own = classes == k
            probabilities[is_own] = own(scores[is_own])
        return probabilities


class Judged(NamedTuple):
    """All detections of a data set that do not show an ignored object."""

    scores: np.ndarray  # (D,) float64
    classes: np.ndarray  # (D,) int64
    right: np.ndarray  # (D,) bool: the IoU with an object of its class is at least 0.5
    images: np.ndarray  # (D,) int64, the number of the image


def judge(
    detections: Mapping[Hashable, Detections],
    objects: Mapping[Hashable, Objects],
    *,
    iou_threshold: float = 0.5,
) -> Judged:
    """Judge each detection alone: several detections of one object may all be right.

    Args:
        detections: {image id: detections}. Images without detections may be absent.
        objects: {image id: ground truth} of every image.
        iou_threshold: the lowest IoU of a right detection.
    """
    parts = []
    for number, (image_id, found) in enumerate(detections.items()):
        truth = objects[image_id]
        iou = box_iou(torch.from_numpy(found.boxes), torch.from_numpy(truth.boxes)).numpy()
        shows = (iou >= iou_threshold) & (found.classes[:, None] == truth.classes)
        right = (shows & ~truth.ignored).any(axis=1)
        counts = right | ~(shows & truth.ignored).any(axis=1)
        images = np.full(len(found.scores), number)
        parts.append([values[counts] for values in (found.scores, found.classes, right, images)])
    if not parts:
        return Judged(np.empty(0), np.empty(0, np.int64), np.empty(0, bool), np.empty(0, np.int64))
    return Judged(*map(np.concatenate, zip(*parts, strict=True)))


def fit_calibration(judged: Judged) -> Calibration | None:
    """Fit the maps of a data set; None if no detection is right, or none is wrong."""
    overall = _fit(judged.scores, judged.right)
    if overall is None:
        return None
    of_classes = {}
    for k in np.unique(judged.classes):
        own = judged.classes == k
        num_right = int(judged.right[own].sum())
        if min(num_right, int(own.sum()) - num_right) < MIN_OF_EACH:
            continue
        fitted = _fit(judged.scores[own], judged.right[own])
        if fitted is not None:
            of_classes[int(k)] = fitted
    return Calibration(overall, of_classes)


def cross_calibrate(judged: Judged, *, num_folds: int = 5) -> np.ndarray | None:
    """Probabilities (D,) of detections, each by maps that were fitted on other images.

    Args:
        judged: the detections.
        num_folds: number of parts of the images. The maps of a part are fitted on the others.

    Returns:
        The probabilities; None if some of the maps cannot be fitted.
    """
    fold_of_image = np.random.default_rng(0).permutation(judged.images.max(initial=-1) + 1)
    folds = fold_of_image[judged.images] % num_folds
    probabilities = np.zeros(len(judged.scores))
    for fold in np.unique(folds):
        held_out = folds == fold
        fitted = fit_calibration(Judged(*(values[~held_out] for values in judged)))
        if fitted is None:
            return None
        probabilities[held_out] = fitted(judged.scores[held_out], judged.classes[held_out])
    return probabilities


def detection_ece(probabilities: np.ndarray, right: np.ndarray, *, num_bins: int = 20) -> float:
    """The expected calibration error of detections (D-ECE, Kueppers et al., CVPRW 2020).

    Args:
        probabilities: (D,) in [0, 1].
        right: (D,) bool.
        num_bins: number of bins of equal width.

    Returns:
        The mean over detections of |mean probability - fraction of right ones| of their bin; 0
        without any detection.
    """
    bins = np.minimum((probabilities * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, probabilities - right, minlength=num_bins)
    return float(np.abs(gaps).sum() / max(len(right), 1))


def _fit(scores: np.ndarray, right: np.ndarray) -> BetaMap | None:
    """Fit a map; None if it cannot be, or if higher scores are not more often right."""
    if right.all() or not right.any():
        return None
    features = np.stack(_features(scores), axis=1)
    used = [0, 1]
    while used:
        model = LogisticRegression(C=_STRENGTH, max_iter=1000)
        model.fit(features[:, used], right)
        slopes = dict(zip(used, model.coef_[0], strict=True))
        if min(slopes.values()) > 0:
            a, b = (float(slopes.get(i, 0.0)) for i in (0, 1))
            return BetaMap(a, b, float(model.intercept_[0]))
        used.remove(min(slopes, key=lambda i: slopes[i]))
    return None


def _features(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log s and -log(1 - s), which stay finite."""
    scores = np.asarray(scores, dtype=np.float64)
    return np.log(np.maximum(scores, _SMALLEST)), -np.log(np.maximum(1 - scores, _SMALLEST))
