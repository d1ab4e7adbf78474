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
    num_objects = sum(int((~ground_truth.ignored).sum()) for ground_truth in objects.values())
    scores, _, verdicts = match_detections(detections, objects, iou_threshold=iou_threshold)
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
