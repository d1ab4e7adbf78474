import math

import pytest

from apdet.evaluation import build_evaluator

BOX, FAR = [10, 10, 60, 60], [70, 70, 120, 120]


@pytest.mark.parametrize("metadata", [{}, {"evaluator_type": "voc"}])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["score", "box"])
def test_a_detection_that_is_not_finite_does_not_count_and_is_logged(
    register, make_image, make_output, evaluate, tmp_path, caplog, metadata, number, where
):
    images = [make_image("a", [BOX], [0], file_name="a.jpg"), make_image("b", [BOX], [0])]
    register("pets", images, **metadata)
    broken = (number, FAR) if where == "score" else (0.95, [70, 70, number, 120])
    found = make_output([broken[1], BOX], [broken[0], 0.5], [0, 0])
    evaluator = build_evaluator("pets", str(tmp_path))
    results = evaluate(evaluator, images, [found, make_output([BOX], [0.4], [0])])
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results.get("voc", {"mAP50_area": 100})["mAP50_area"] == pytest.approx(100)
    assert "pets: 1 detections in 1 images have a score or a box that is NaN" in caplog.text
    assert "a.jpg" in caplog.text


def test_finite_detections_are_evaluated_without_a_word(
    register, make_image, make_output, evaluate, tmp_path, caplog
):
    images = [make_image("a", [BOX], [0])]
    register("pets", images)
    evaluator = build_evaluator("pets", str(tmp_path))
    evaluate(evaluator, images, [make_output([BOX], [0.5], [0])])
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
