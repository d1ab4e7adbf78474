import json

import numpy as np
import pytest
from detectron2.data import MetadataCatalog

from apdet.errors import UserError
from apdet.evaluation import build_evaluator
from apdet.evaluation.predictions import read_predictions

BOX, FAR = [10, 10, 60, 60], [70, 70, 120, 120]


def read(path, ids, name="pets"):
    return read_predictions(path, MetadataCatalog.get(name), ids)


@pytest.mark.parametrize("ids", [["b", "a"], [4, "a"], [5, 2]])
def test_what_is_evaluated_is_read_back_under_the_ids_of_the_data_set(
    register, make_image, make_output, evaluate, tmp_path, ids
):
    images = [make_image(image_id, [BOX], [1]) for image_id in ids]
    register("pets", images)
    evaluate(
        build_evaluator("pets", str(tmp_path)),
        images,
        [make_output([BOX], [0.5], [1]), make_output([FAR, BOX], [0.25, 0.75], [2, 0])],
    )
    file = tmp_path / "coco_instances_results.json"
    written = json.loads(file.read_text())
    assert {type(result["image_id"]) for result in written} == {int}
    found = read(file, ids)
    assert list(found) == ids
    np.testing.assert_allclose(found[ids[0]].boxes, [BOX])
    np.testing.assert_allclose(found[ids[1]].scores, [0.25, 0.75])
    assert found[ids[1]].classes.tolist() == [2, 0]


def test_files_of_0_1_hold_the_ids_of_the_data_set(register, tmp_path):
    register("pets", [])
    file = tmp_path / "old.json"
    result = {"image_id": "000007", "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}
    file.write_text(json.dumps([result]))
    assert list(read(file, ["000003", "000007"])) == ["000007"]


@pytest.mark.parametrize("unknown", [9, 0, "c"])
def test_an_image_that_the_data_set_does_not_have_is_refused(register, tmp_path, unknown):
    register("pets", [])
    file = tmp_path / "other.json"
    result = {"image_id": unknown, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}
    file.write_text(json.dumps([result]))
    with pytest.raises(UserError, match=f"{unknown!r}, which is not in pets; evaluate again"):
        read(file, ["a", 9])  # which have the numbers 1 and 2


def test_half_a_file_is_refused_by_its_name(register, tmp_path):
    register("pets", [])
    file = tmp_path / "half.json"
    file.write_text('[{"image_id": 1, "category_id": 1, "bb')
    with pytest.raises(UserError, match=r"half\.json: .*evaluate again to renew the file"):
        read(file, [1])
