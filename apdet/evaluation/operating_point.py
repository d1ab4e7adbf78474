"""The score from which on detections are worth showing."""

from collections.abc import Hashable, Mapping

import numpy as np

from apdet.evaluation.matching import HIT, IGNORED, Detections, Objects, match_detections


def best_f1_threshold(
    detections: Mapping[Hashable, Detections],
    objects: Mapping[Hashable, Objects],
    *,
    iou_threshold: float = 0.5,
) -> tuple[float, float] | None:
    """The score threshold, one for all classes, of the highest F1 on a data set, and that F1.

    Scores of a ranking are no probabilities, so no fixed threshold suits all detectors. With the
    detections of a score at or above the threshold,

        F1 = 2 hits / (detections + objects)

    Args:
        detections: of each image, by image id. Images may be absent.
        objects: of each image, by image id; those to ignore, and what hits them, do not count.
        iou_threshold: a hit has an IoU above this.

    Returns:
        (threshold, F1), the highest threshold of those equally good; None if nothing is hit.
    """
    num_objects = sum(int((~there.ignored).sum()) for there in objects.values())
    scores, _, verdicts = match_detections(detections, objects, iou_threshold=iou_threshold)
    scores, verdicts = scores[verdicts != IGNORED], verdicts[verdicts != IGNORED]
    if not (verdicts == HIT).any():
        return None
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(verdicts[order] == HIT)
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + num_objects)
    # A threshold cannot part detections of equal score: only the last of them is a choice.
    choices = np.flatnonzero(np.append(scores[1:] < scores[:-1], True))
    best = choices[f1[choices].argmax()]
    return float(scores[best]), float(f1[best])
