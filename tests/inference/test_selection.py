import pytest
import torch
from detectron2.structures import Boxes, Instances

from apdet.errors import UserError
from apdet.inference.selection import Selection, find_classes


def test_the_best_detections_of_the_classes_are_kept():
    found = Instances((4, 4))
    found.scores = torch.tensor([0.9, 0.8, 0.7, 0.5, 0.4])
    found.pred_classes = torch.tensor([1, 0, 2, 0, 0])
    found.pred_boxes = Boxes(torch.zeros(5, 4))
    of = lambda *args: Selection(*args).apply(found).scores.tolist()  # noqa: E731
    assert of(0.5, [0, 2]) == pytest.approx([0.8, 0.7, 0.5])  # a score at the threshold stays
    assert of(0.0, [0], 2) == pytest.approx([0.8, 0.5])
    assert of(1.0, [0, 1, 2]) == []


def test_classes_are_found_by_their_names():
    names = ["cat", "dog", "big, dog", "cow"]
    assert find_classes("", names) == [0, 1, 2, 3]
    assert find_classes("cow, cat,cow", names) == [0, 3]
    assert find_classes("big, dog", names) == [2]
    with pytest.raises(UserError, match=r"names 'Cow'.* did you mean cow"):
        find_classes("cat,Cow", names)
    with pytest.raises(UserError, match=r"names 'xyz'.*choose among cat, dog"):
        find_classes("xyz", names)
    with pytest.raises(UserError, match="names no class"):
        find_classes(" , ", names)
