"""Finds the operating point of a detector: the score threshold for showing detections."""

from collections.abc import Hashable, Mapping

import numpy as np

from apdet.evaluation.matching import (
    IGNORED,
    TRUE_POSITIVE,
    Detections,
    Objects,
    match_detections,
)


def best_f1_threshold(
    detections: Mapping[Hashable, Detections],
    objects: Mapping[Hashable, Objects],
    *,
    iou_threshold: float = 0.5,
) -> tuple[float, float] | None:
    """Find the score threshold, one for all classes, with the highest F1 on a data set.

    A detector trained by ranking does not give probabilities, so no fixed threshold suits all
    detectors. For the detections with a score at or above the threshold,

        F1 = 2 true positives / (detections + objects)

    Ignored objects, and detections that match them, do not count.

    Args:
        detections: {image id: detections}. Images without detections may be absent.
        objects: {image id: ground truth} of every image.
        iou_threshold: a true positive has an IoU above this threshold.

    Returns:
        (threshold, F1). If several thresholds are equally good, the highest one. None if no
        detection is a true positive.
    """
    scores, _, verdicts = match_detections(detections, objects, iou_threshold=iou_threshold)
    num_objects = sum(int((~ground_truth.ignored).sum()) for ground_truth in objects.values())
    return _best(scores, verdicts, num_objects)


def class_thresholds(
    detections: Mapping[Hashable, Detections],
    objects: Mapping[Hashable, Objects],
    *,
    min_objects: int = 10,
    iou_threshold: float = 0.5,
) -> dict[int, float]:
    """Find the score threshold of each class, as `best_f1_threshold` finds that of all classes.

    Args:
        detections: see `best_f1_threshold`.
        objects: see `best_f1_threshold`.
        min_objects: classes with fewer objects have no threshold.
        iou_threshold: see `best_f1_threshold`.

    Returns:
        {number of the class: threshold}.
    """
    scores, classes, verdicts = match_detections(detections, objects, iou_threshold=iou_threshold)
    counted = [truth.classes[~truth.ignored] for truth in objects.values()]
    num_objects = np.bincount(np.concatenate([np.empty(0, np.int64), *counted]))
    found = {}
    for k in np.flatnonzero(num_objects >= min_objects):
        of_class = classes == k
        best = _best(scores[of_class], verdicts[of_class], int(num_objects[k]))
        if best is not None:
            found[int(k)] = best[0]
    return found


def _best(scores: np.ndarray, verdicts: np.ndarray, num_objects: int) -> tuple[float, float] | None:
    """The threshold with the best F1 of detections with scores and verdicts (D,), and that F1."""
    scores, verdicts = scores[verdicts != IGNORED], verdicts[verdicts != IGNORED]
    if not (verdicts == TRUE_POSITIVE).any():
        return None
    order = np.argsort(-scores, kind="stable")
    scores, num_true_positives = scores[order], np.cumsum(verdicts[order] == TRUE_POSITIVE)
    f1 = 2 * num_true_positives / (np.arange(1, len(scores) + 1) + num_objects)
    # A threshold cannot separate detections of equal score: only the last of them is a candidate.
    candidates = np.flatnonzero(np.append(scores[1:] < scores[:-1], True))
    best = candidates[f1[candidates].argmax()]
    return float(scores[best]), float(f1[best])
