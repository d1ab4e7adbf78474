import json

import pytest

from apdet.errors import UserError
from apdet.inference.coco_set import read_coco_set


@pytest.fixture
def test_json(tmp_path):
    def write(ids=(30, 7), names=("Dog", "cat", "cow")):
        images = [{"id": i, "file_name": f"{i}/x.jpg"} for i in ids]
        categories = [{"id": 5 * k + 2, "name": name} for k, name in enumerate(names)]
        path = tmp_path / "test.json"
        path.write_text(json.dumps({"images": images, "categories": categories}))
        return str(path)

    return write


def test_ids_of_images_and_categories_are_those_of_the_file(test_json, tmp_path):
    images, classes = read_coco_set(test_json(), "", ["cat", "dog"], [0, 1])
    assert [(i.image_id, i.path, i.name) for i in images] == [
        (7, str(tmp_path / "7/x.jpg"), "7/x.jpg"),
        (30, str(tmp_path / "30/x.jpg"), "30/x.jpg"),
    ]
    assert classes == {0: 7, 1: 2}


def test_images_with_texts_as_ids_are_numbered(test_json):
    images, _ = read_coco_set(test_json(ids=("b", "a")), "", ["cat"], [0])
    assert [(i.image_id, i.name) for i in images] == [(1, "a/x.jpg"), (2, "b/x.jpg")]


def test_a_class_that_the_file_lacks_is_refused_only_if_it_is_predicted(test_json):
    classes = ["cat", "bird", "cow"]
    assert read_coco_set(test_json(), "", classes, [0, 2])[1] == {0: 7, 2: 12}
    with pytest.raises(UserError, match="no category 'bird' of the model"):
        read_coco_set(test_json(), "", classes, [0, 1, 2])
