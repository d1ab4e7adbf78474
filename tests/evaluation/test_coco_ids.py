import numpy as np
import pytest
from detectron2.data import MetadataCatalog

from apdet.errors import UserError
from apdet.evaluation.coco_ids import category_ids, number_images


@pytest.mark.parametrize("ids", [[7, 3, 0], [np.int64(7), 3], [-1], []])
def test_integer_ids_stay(ids):
    numbers = number_images(ids)
    assert list(numbers.items()) == [(i, i) for i in ids]
    assert {type(number) for number in numbers.values()} <= {int}


@pytest.mark.parametrize("ids", [["b", "a"], ["7", 7, "x"], [2, "1"], [True, 5], [1.5]])
def test_if_one_id_is_no_integer_all_images_are_numbered_in_their_order(ids):
    assert list(number_images(ids).items()) == list(zip(ids, range(1, len(ids) + 1), strict=True))


def test_two_images_with_one_id_are_refused():
    with pytest.raises(UserError, match="2 images have the id 'b'"):
        number_images(["a", "b", "b"])


def test_a_set_has_no_order_to_number_by():
    assert number_images({1, 2}) == {1: 1, 2: 2}
    with pytest.raises(TypeError, match="order"):
        number_images({"a", "b"})


def test_category_ids_are_those_of_the_file_or_else_the_classes(register):
    register("pets", [])
    assert category_ids(MetadataCatalog.get("pets")) == {0: 0, 1: 1, 2: 2}
    register("numbered", [], thing_dataset_id_to_contiguous_id={18: 1, 5: 0, 7: 2})
    assert category_ids(MetadataCatalog.get("numbered")) == {0: 5, 1: 18, 2: 7}
