import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

from apdet.inference.picture import draw_picture, picture_name, write_picture

GREY = np.full((480, 640, 3), 128, dtype=np.uint8)


def instances(height=480, width=640, boxes=((100.0, 100.0, 300.0, 250.0),), **fields):
    found = Instances((height, width))
    found.pred_boxes = Boxes(torch.tensor(boxes))
    found.scores = torch.full((len(boxes),), 0.75)
    found.pred_classes = torch.arange(len(boxes))
    for name, value in fields.items():
        found.set(name, value)
    return found


def changed(picture, pixels=GREY):
    return (picture.astype(int) - pixels != 0).any(axis=2)


def test_the_edges_of_a_box_are_drawn_where_the_box_is():
    is_drawn = changed(draw_picture(GREY, instances(), ["cat"]))
    assert is_drawn[105:245, 100].all()
    assert is_drawn[105:245, 299].all()
    assert is_drawn[249, 105:295].all()
    assert not is_drawn[110:240, 110:290].any()
    assert not is_drawn[270:].any()


def test_masks_and_keypoints_are_drawn():
    mask = torch.zeros(1, 480, 640, dtype=torch.bool)
    mask[:, 150:200, 150:250] = True
    keypoints = torch.tensor([[[120.0, 230.0, 1.0], [280.0, 110.0, 0.0]]])
    found = instances(pred_masks=mask, pred_keypoints=keypoints)
    is_drawn = changed(draw_picture(GREY, found, ["cat"]))
    assert is_drawn[155:195, 155:245].all()
    assert is_drawn[230, 120]
    assert not is_drawn[210:220, 150:250].any()
    assert found.pred_keypoints.equal(keypoints)


def test_a_small_image_is_enlarged_with_its_boxes_and_masks():
    mask = torch.zeros(1, 48, 64, dtype=torch.bool)
    mask[:, 20:24, 20:30] = True
    found = instances(48, 64, [(16.0, 16.0, 48.0, 40.0)], pred_masks=mask)
    pixels = GREY[:48, :64]
    picture = draw_picture(pixels, found, ["cat"])
    assert picture.shape == (7 * 48, 7 * 64, 3)
    is_drawn = changed(picture, 128)
    assert is_drawn[7 * 20 + 3 : 7 * 24 - 3, 7 * 20 + 3 : 7 * 30 - 3].all()
    assert is_drawn[7 * 17 : 7 * 39, 7 * 16].all()


def test_a_picture_without_detections_is_the_image():
    np.testing.assert_array_equal(draw_picture(GREY, instances(boxes=())[:0], []), GREY)


@pytest.mark.parametrize("name", ["$x^$", "a\nb\x1b", "\udcff", "x" * 500, ""])
def test_any_class_name_can_be_drawn(name):
    assert changed(draw_picture(GREY, instances(), [name])).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1)])
def test_images_of_extreme_shapes_can_be_drawn(shape):
    found = instances(*shape, boxes=[(0.0, 0.0, 1.0, 1.0)])
    assert draw_picture(np.zeros((*shape, 3), np.uint8), found, ["cat"]).size


@pytest.mark.parametrize(
    ("name", "expected", "kind"),
    [
        ("a/b.jpg", "a/b.jpg", "JPEG"),
        ("b.JPEG", "b.JPEG", "JPEG"),
        ("b.png", "b.png", "PNG"),
        ("b.tif", "b.tif.png", "PNG"),
    ],
)
def test_a_picture_is_of_the_kind_that_its_name_says(tmp_path, name, expected, kind):
    assert picture_name(name) == expected
    path = tmp_path / expected
    write_picture(str(path), GREY, instances(), ["cat"])
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == (kind, (640, 480))
