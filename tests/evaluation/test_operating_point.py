import numpy as np
import pytest

from apdet.evaluation.matching import Detections, Objects, match_detections, read_objects
from apdet.evaluation.operating_point import best_f1_threshold, class_thresholds

BOX, FAR = [10, 10, 50, 50], [100, 100, 140, 140]


def iou(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    inter = width * height
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def f1_by_definition(images, detections, threshold):
    """F1 of the detections at or above a threshold, matched one by one."""
    hits = false_positives = num_objects = 0
    for image in images:
        objects = image["annotations"]
        num_objects += sum(not o["iscrowd"] for o in objects)
        found = zip(*detections[image["image_id"]], strict=True)
        found = sorted((f for f in found if f[1] >= threshold), key=lambda f: -f[1])
        taken = []
        for box, _, label in found:
            mine = [o for o in objects if o["category_id"] == label]
            best = max(mine, key=lambda o: iou(box, o["bbox"]), default=None)
            if best is None or iou(box, best["bbox"]) <= 0.5:
                false_positives += 1
            elif not best["iscrowd"]:
                is_new = not any(best is t for t in taken)
                hits, false_positives = hits + is_new, false_positives + (not is_new)
                taken.append(best)
    misses = num_objects - hits
    return 2 * hits / (2 * hits + false_positives + misses)


@pytest.mark.parametrize("decimals", [3, 1])
@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_has_a_higher_f1(random_case, seed, decimals):
    images, detections = random_case(seed)
    # With one decimal many scores are equal, and no threshold can part them.
    detections = {k: (b, s.round(decimals), c) for k, (b, s, c) in detections.items()}
    found = {key: Detections(*values) for key, values in detections.items()}

    threshold, f1 = best_f1_threshold(found, read_objects(images))

    candidates = np.unique(np.concatenate([d.scores for d in found.values()]))
    by_definition = {t: f1_by_definition(images, detections, t) for t in candidates}
    assert f1 == pytest.approx(max(by_definition.values()))
    assert f1 == pytest.approx(by_definition[threshold])
    better = [t for t, value in by_definition.items() if value > f1 - 1e-12]
    assert threshold == max(better)


def test_a_verdict_does_not_depend_on_detections_of_lower_score(random_case):
    images, detections = random_case(0)
    objects = read_objects(images)
    found = {key: Detections(*values) for key, values in detections.items()}
    judged = match_detections(found, objects)
    above = {k: Detections(*(v[d.scores >= 0.5] for v in d)) for k, d in found.items()}
    np.testing.assert_array_equal(
        match_detections(above, objects).verdicts, judged.verdicts[judged.scores >= 0.5]
    )


@pytest.mark.parametrize("ignored", [0, 1])
def test_without_a_hit_there_is_no_threshold(make_image, ignored):
    objects = read_objects([make_image("a", [BOX], [0], [ignored])])
    box = BOX if ignored else FAR
    found = {"a": Detections(np.array([box], dtype=float), np.array([0.5]), np.array([0]))}
    assert best_f1_threshold(found, objects) is None
    assert best_f1_threshold({}, objects) is None


def test_the_threshold_of_a_class_is_that_of_its_detections_alone():
    rng = np.random.default_rng(0)
    objects, detections = {}, {}
    for image in range(30):
        low = rng.uniform(0, 50, (6, 2))
        boxes = np.hstack([low, low + rng.uniform(5, 20, (6, 2))])
        classes = rng.integers(3, size=6)
        objects[image] = Objects(boxes[:4], classes[:4], rng.uniform(size=4) < 0.1)
        detections[image] = Detections(boxes, rng.uniform(size=6), classes)
    objects[0] = Objects(np.zeros((1, 4)), np.array([7]), np.array([False]))  # a rare class
    found = class_thresholds(detections, objects)
    expected = {
        k: best_f1_threshold(
            {i: Detections(*(v[d.classes == k] for v in d)) for i, d in detections.items()},
            {i: Objects(*(v[o.classes == k] for v in o)) for i, o in objects.items()},
        )[0]
        for k in range(3)
    }
    assert found == expected
    assert class_thresholds(detections, objects, min_objects=10**6) == {}
    assert class_thresholds({}, {}) == {}
