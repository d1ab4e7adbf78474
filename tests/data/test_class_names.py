import logging
import re

import pytest

from apdet.data.class_names import ClassNumbers, warn_of_empty_classes, warn_of_similar_names
from apdet.data.records import Records, to_dataset_dicts
from apdet.errors import UserError


@pytest.fixture
def warnings(caplog, monkeypatch):
    logger = logging.getLogger("apdet.data.class_names")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    return lambda: [r.getMessage() for r in caplog.records if r.name == logger.name]


@pytest.mark.parametrize(
    "name", ["traffic light", "Traffic Light", "traffic_light", " TRAFFIC-light"]
)
def test_a_class_is_found_by_a_name_that_is_almost_the_same(name):
    assert ClassNumbers(["cat", "traffic light"]).find(name) == 1


def test_the_same_letters_in_unicode_are_the_same():
    assert ClassNumbers(["cafe\u0301"]).find("caf\u00e9") == 0


def test_a_class_is_not_guessed():
    numbers = ClassNumbers(["dog", "Dog", "cat"])
    assert [numbers.find(name) for name in ("dog", "Dog", "DOG", "ca", "Cat")] == [
        0,
        1,
        None,
        None,
        2,
    ]


def test_names_that_are_almost_the_same_are_said(warnings):
    warn_of_similar_names({"dog": 3, "cat": 1, "Dog": 2, "d-og": 0}, "farm")
    (warning,) = warnings()
    assert "'dog' (3 boxes), 'Dog' (2 boxes), 'd-og' (0 boxes)" in warning
    assert "cat" not in warning
    warn_of_similar_names({"dog": 3, "cat": 1}, "farm")
    assert len(warnings()) == 1


def test_classes_without_a_box_are_said(warnings):
    warn_of_empty_classes({"dog": 3, "cat": 0, "owl": 0}, "farm")
    assert "farm: no box of cat, owl" in warnings()[0]
    warn_of_empty_classes({"dog": 3}, "farm")
    assert len(warnings()) == 1


def test_boxes_of_a_similar_name_are_counted(voc, flaws):
    voc.add("a")
    box = {"bbox": [0.0, 0.0, 9.0, 9.0], "bbox_mode": 0, "iscrowd": 0}
    image = {
        "file_name": str(voc.images / "a.jpg"),
        "height": 30,
        "width": 40,
        "source": "a.xml",
        "annotations": [{**box, "category": name} for name in ("Dog", "dog", "Dog")],
    }
    (dicts,) = to_dataset_dicts(Records([image], ["dog"], None), ["dog"], "farm")
    assert [a["category_id"] for a in dicts["annotations"]] == [0, 0, 0]
    assert flaws() == [
        "farm: 2 boxes of 'Dog' are taken for the class 'dog'; the first is in a.xml"
    ]


@pytest.mark.parametrize("name", ["cat\x1b[31m", "c\x00at", "cat\x7f", "c\x9bat"])
def test_a_name_with_control_characters_is_refused_and_shown_escaped(name):
    with pytest.raises(UserError, match=re.escape(repr(name))):
        ClassNumbers(["dog", name])
