import math
from pathlib import Path

import numpy as np
import pytest
from detectron2.evaluation.pascal_voc_evaluation import voc_eval
from detectron2.utils import comm

from apdet.evaluation.matching import Detections
from apdet.evaluation.voc import VOCEvaluator, voc_average_precision

CLASSES = ["cat", "dog", "cow"]
BOX = [10.0, 10.0, 50.0, 50.0]


def write_voc_folder(folder, images, detections):
    """The files Detectron2's VOC evaluation reads: pixels from 1 on, the last one included."""
    (folder / "Annotations").mkdir()
    for image in images:
        objects = ""
        for a in image["annotations"]:
            x0, y0, x1, y1 = (int(v) for v in a["bbox"])
            objects += (
                f"<object><name>{CLASSES[a['category_id']]}</name><pose>Left</pose>"
                f"<truncated>0</truncated><difficult>{a['iscrowd']}</difficult>"
                f"<bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin>"
                f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            )
        file = folder / "Annotations" / f"{image['image_id']}.xml"
        file.write_text(f"<annotation>{objects}</annotation>")
    (folder / "test.txt").write_text("".join(f"{image['image_id']}\n" for image in images))
    for k, name in enumerate(CLASSES):
        lines = [
            f"{image_id} {score:.3f} {x0 + 1:.1f} {y0 + 1:.1f} {x1:.1f} {y1:.1f}"
            for image_id, found in detections.items()
            for (x0, y0, x1, y1), score, label in zip(*found, strict=True)
            if label == k
        ]
        (folder / f"{name}.txt").write_text("\n".join(lines))


def voc_eval_of(folder: Path, name: str, rule: str) -> float:
    files = (folder / "{}.txt", folder / "Annotations" / "{}.xml", folder / "test.txt")
    return voc_eval(*map(str, files), name, 0.5, rule == "11point")[2]


@pytest.mark.parametrize("seed", range(8))
def test_equals_detectron2_on_a_voc_folder(random_case, tmp_path, seed):
    images, detections = random_case(seed)
    write_voc_folder(tmp_path, images, detections)
    found = {key: Detections(*values) for key, values in detections.items()}

    aps = voc_average_precision(found, images, len(CLASSES))

    for rule, values in aps.items():
        expected = [voc_eval_of(tmp_path, name, rule) for name in CLASSES]
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9)
        assert 0 < np.min(values) < np.max(values) < 1


def ap_of(make_image, boxes, scores, *, true_boxes=(BOX,), ignored=None):
    """The AP by area of one class in one image."""
    images = [make_image("a", true_boxes, [0] * len(true_boxes), ignored)]
    found = Detections(
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(scores, dtype=np.float64),
        np.zeros(len(boxes), dtype=np.int64),
    )
    return voc_average_precision({"a": found}, images, 1)["area"][0]


FAR, OTHER = [100.0, 100.0, 140.0, 140.0], [60.0, 10.0, 100.0, 50.0]


@pytest.mark.parametrize(
    ("boxes", "scores", "expected"),
    [
        ([BOX], [0.1], 1.0),
        ([], [], 0.0),
        ([FAR], [0.9], 0.0),
        ([FAR, BOX], [0.9, 0.8], 0.5),
        ([BOX, FAR], [0.9, 0.8], 1.0),
        ([FAR, BOX], [0.9, 0.95], 1.0),
        ([BOX, FAR], [0.5, 0.5], 1.0),  # of equal scores, the first comes first
        ([FAR, BOX], [0.5, 0.5], 0.5),
    ],
)
def test_one_object_has_the_precision_at_its_hit(make_image, boxes, scores, expected):
    assert ap_of(make_image, boxes, scores) == pytest.approx(expected)


def test_of_many_equal_scores_the_first_come_first(make_image):
    boxes = [*[FAR] * 50, BOX, *[FAR] * 149]
    assert ap_of(make_image, boxes, [0.5, 0.4] * 100) == pytest.approx(1 / 26)


def test_a_second_hit_on_an_object_is_a_false_positive(make_image):
    ap = ap_of(make_image, [BOX, BOX, OTHER], [0.9, 0.8, 0.7], true_boxes=[BOX, OTHER])
    assert ap == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_a_detection_does_not_fall_back_on_its_second_best_object(make_image):
    shifted = [14.0, 10.0, 54.0, 50.0]  # IoU with BOX 0.82
    ap = ap_of(make_image, [BOX, BOX], [0.9, 0.8], true_boxes=[BOX, shifted])
    assert ap == pytest.approx(0.5)


def test_an_iou_of_exactly_the_threshold_is_no_hit(make_image):
    half = [10.0, 10.0, 50.0, 30.0]
    assert ap_of(make_image, [half], [0.9]) == 0
    assert ap_of(make_image, [[10.0, 10.0, 50.0, 30.5]], [0.9]) == 1


def test_difficult_objects_are_neither_hits_nor_misses(make_image):
    both = [BOX, OTHER]
    ap = ap_of(make_image, [OTHER, OTHER, BOX], [0.9, 0.8, 0.7], true_boxes=both, ignored=[0, 1])
    assert ap == pytest.approx(1.0)
    assert math.isnan(ap_of(make_image, [OTHER], [0.9], true_boxes=[OTHER], ignored=[1]))


def test_an_object_of_another_class_or_image_is_not_hit(make_image):
    images = [make_image("a", [BOX], [0]), make_image("b")]
    for image_id, label in [("a", 1), ("b", 0)]:
        found = Detections(np.array([BOX]), np.array([0.9]), np.array([label]))
        aps = voc_average_precision({image_id: found}, images, 2)
        np.testing.assert_array_equal(aps["area"], [0, np.nan])


def test_the_evaluator_gives_percent_and_leaves_absent_classes_out_of_the_mean(
    register, make_image, make_output, evaluate
):
    images = [make_image("a", [BOX, OTHER], [0, 1]), make_image("b")]
    register("pets", images)
    outputs = [make_output([BOX], [0.9], [0]), make_output()]

    results = evaluate(VOCEvaluator("pets"), images, outputs)["voc"]

    assert results["mAP50_area"] == pytest.approx(50)
    assert results["mAP50_11point"] == pytest.approx(50)
    per_class = [results[f"AP50_area-{name}"] for name in CLASSES]
    np.testing.assert_allclose(per_class, [100, 0, np.nan])


def test_no_objects_at_all_give_nan(register, make_image, make_output, evaluate):
    images = [make_image("a")]
    register("empty", images)
    results = evaluate(VOCEvaluator("empty"), images, [make_output([BOX], [0.9], [0])])
    assert all(math.isnan(value) for value in results["voc"].values())


def test_the_first_process_gathers_and_the_others_return_nothing(
    register, make_image, make_output, monkeypatch
):
    images = [make_image("a", [BOX], [0]), make_image("b", [BOX], [0])]
    register("pets", images)
    shards = []
    for image in images:
        evaluator = VOCEvaluator("pets")
        evaluator.process([image], [make_output([BOX], [0.9], [0])])
        shards.append(evaluator._detections)
    assert evaluator.evaluate()["voc"]["mAP50_area"] == pytest.approx(50)

    monkeypatch.setattr(comm, "gather", lambda data, dst: shards)
    assert evaluator.evaluate()["voc"]["mAP50_area"] == pytest.approx(100)
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert evaluator.evaluate() == {}
