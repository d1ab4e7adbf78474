import numpy as np
import pytest
from coco_dicts import load_coco
from detectron2.data.detection_utils import read_image
from detectron2.structures import BoxMode
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from apdet.data.clean import clean, image_size
from apdet.data.flaws import Flaws
from apdet.data.voc import load_voc
from apdet.errors import UserError


def boxes(image):
    return [annotation["bbox"] for annotation in image["annotations"]]


def test_boxes_outside_are_clipped_with_one_warning_that_counts_them(voc, flaws):
    voc.add("a", [("cat", 0, 1, 41, 30), ("cat", 2, 2, 9, 9), ("cat", -5, 20, 10, 99)])
    voc.add("b", [("cat", 39, 29, 41, 31)])
    a, b = load_voc(voc.images, voc.xml)
    assert boxes(a) == [[0, 0, 40, 30], [1, 1, 9, 9], [0, 19, 10, 30]]
    assert boxes(b) == [[38, 28, 40, 30]]
    (warning,) = flaws()
    assert "3 boxes" in warning
    assert "clipped" in warning
    assert str(voc.images / "a.jpg") in warning


def test_empty_boxes_are_dropped_with_one_warning_that_counts_them(coco, flaws):
    coco.add(1, [(1, 5, 5, 0, 9), (2, 5, 5, 3, 9), (1, 40, 0, 5, 5)])
    coco.add(2, [(1, 0, -9, 5, 9)])
    one, two = load_coco(coco.write().json, coco.images)
    assert [a["category_id"] for a in one["annotations"]] == [1]
    assert boxes(one) == [[5, 5, 8, 14]]
    assert boxes(two) == []
    empty, outside = flaws()
    assert "1 boxes are empty and were dropped" in empty
    assert "2 boxes are wholly outside their image and were dropped" in outside
    assert all(str(coco.images / "1.png") in warning for warning in (empty, outside))


def test_corners_in_the_wrong_order_are_put_right_and_counted(voc, coco, flaws):
    voc.add("a", [("cat", 20, 5, 11, 15), ("cat", 11, 15, 20, 5), ("cat", 20, 15, 11, 5)])
    coco.add(1, [(1, 20, 5, -10, 11), (1, 10, 16, 10, -11), (1, 20, 16, -10, -11)])
    for (image,) in (load_voc(voc.images, voc.xml), load_coco(coco.write().json, coco.images)):
        assert boxes(image) == 3 * [boxes(image)[0]]
    assert boxes(image)[0] == [10, 5, 20, 16]
    assert ["3 boxes have their corners in the wrong order" in w for w in flaws()] == [True, True]


def test_fractions_of_the_image_are_refused(voc, coco, flaws):
    voc.add("a", [("cat", 0.1, 0.25, 0.5, 0.75)]).add("b", [("cat", 0.5, 0.25, 1.001, 1.001)])
    coco.add(1, [(1, 0.1, 0.25, 0.4, 0.5), (1, 0, 0, 1, 1)])
    with pytest.raises(UserError, match=r"a\.xml: all boxes lie between 0 and 1.*write pixels"):
        load_voc(voc.images, voc.xml)
    with pytest.raises(UserError, match=r"instances\.json: all boxes .* fractions of the image"):
        load_coco(coco.write().json, coco.images)
    # One pixel in the corner is a box, and few thin boxes among others are only counted.
    voc.annotate("a", [("cat", 1, 1, 1, 1)])
    voc.annotate("b", [("cat", 1, 1, 1, 1)])
    assert [boxes(image) for image in load_voc(voc.images, voc.xml)] == 2 * [[[0, 0, 1, 1]]]
    assert flaws() == []
    coco.add(2, [(1, 2, 2, 9, 9)])
    load_coco(coco.write().json, coco.images)
    assert "1 boxes are narrower or lower than a pixel" in flaws()[0]


def test_corners_as_fractions_of_the_image_are_refused(coco):
    coco.add(1, [(1, 0.5, 0.5, 0.9, 0.95), (1, 0.4, 0.3, 0.9, 1)])
    with pytest.raises(UserError, match="fractions of the image"):
        load_coco(coco.write().json, coco.images)


def test_one_tiny_box_is_not_taken_for_fractions(coco, flaws):
    load_coco(coco.add(1, [(1, 0.25, 0.5, 0.5, 1)]).write().json, coco.images)
    (warning,) = flaws()
    assert "1 boxes are narrower or lower than a pixel" in warning


@pytest.mark.parametrize("number", [1e7, -1e7, 1e300])
def test_a_number_that_no_image_has_as_coordinate_is_named(voc, number):
    voc.add("a", [("cat", 1, 1, number, 9)])
    with pytest.raises(UserError, match=r"a\.xml: the box .* is not in pixels; correct or remove"):
        load_voc(voc.images, voc.xml)


def test_a_hint_is_given_if_most_boxes_reach_outside(coco, flaws):
    corners = [(1, 10, 10, 35, 28), (1, 20, 12, 38, 20), (2, 3, 3, 9, 9)]
    load_coco(coco.add(1, corners).write().json, coco.images)
    (warning,) = flaws()
    assert "2 boxes reach outside" in warning
    assert "[x0, y0, x1, y1] in place of [x, y, width, height]?" in warning


def test_wrong_sizes_are_corrected_with_one_warning_that_counts_them(voc, flaws):
    voc.add("a", [("cat", 1, 1, 50, 20)], size=(50, 20), stated=(20, 50))
    voc.add("b", stated=(0, 0)).add("c")
    a, b, _ = load_voc(voc.images, voc.xml)
    assert (a["width"], a["height"]) == (50, 20)
    assert (b["width"], b["height"]) == (40, 30)
    assert boxes(a) == [[0, 0, 50, 20]]
    (warning,) = flaws()
    assert "2 images" in warning
    assert str(voc.images / "a.jpg") in warning


def test_each_kind_of_flaw_has_its_own_warning(coco, flaws):
    coco.add(1, [(1, 30, 20, 30, 30), (1, 5, 5, 0, 0)], stated=(30, 40))
    load_coco(coco.write().json, coco.images)
    assert len(flaws()) == 3


def test_a_clean_data_set_gives_no_warning(voc, flaws):
    load_voc(voc.add("a", [("cat", 1, 1, 40, 30)]).images, voc.xml)
    assert flaws() == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_that_detectron2_reads(tmp_path, orientation):
    path = str(tmp_path / "phone.jpg")
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    expected = (30, 40) if orientation >= 5 else (40, 30)
    assert image_size(path) == read_image(path).shape[1::-1] == expected


def test_boxes_of_a_turned_image_are_kept_within_it_as_it_is_seen(voc, flaws):
    voc.add("a", [("cat", 1, 1, 30, 40)], stated=(30, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(voc.images / "a.jpg", exif=exif)
    (image,) = load_voc(voc.images, voc.xml)
    assert (image["width"], image["height"]) == (30, 40)
    assert boxes(image) == [[0, 0, 30, 40]]
    assert flaws() == []


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_is_passed_over(tmp_path):
    path = str(tmp_path / "a.jpg")
    Image.new("RGB", (40, 30)).save(path, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert image_size(path) == read_image(path).shape[1::-1] == (40, 30)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_what_begins_like_an_image_but_is_none_is_named(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.jpg: not a readable image .*; replace it"):
        image_size(str(path))


def test_an_image_beyond_pillows_limit_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("1", (200, 200)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"a\.png: not a readable image"):
        image_size(str(path))


coordinates = st.floats(-1e6, 1e6) | st.integers(-5, 45).map(float)


@given(st.lists(st.tuples(*[coordinates] * 4).map(list), max_size=5))
def test_cleaned_boxes_lie_in_the_image_and_hold_what_they_held_of_it(found):
    width, height = 40, 30
    found.append([0.0, 0.0, 40.0, 30.0])  # if all boxes are fractions, they are refused
    record = {
        "file_name": "a.jpg",
        "source": "a.xml",
        "width": width,
        "height": height,
        "annotations": [
            {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "number": i} for i, box in enumerate(found)
        ],
    }
    (image,) = clean([record], Flaws(), lambda file_names: [(width, height)])
    points = np.random.default_rng(0).uniform(0, (width, height), (500, 2))
    kept = {a["number"]: a["bbox"] for a in image["annotations"]}
    for x0, y0, x1, y1 in kept.values():
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
    for number, box in enumerate(found):
        now = kept.get(number, [0, 0, 0, 0])
        inside = [((points >= b[:2]) & (points < b[2:])).all(axis=1) for b in (box, now)]
        np.testing.assert_array_equal(*inside)


def test_what_was_read_is_left_as_it_was(voc):
    box = {"bbox": [-3.0, 0.0, 5.0, 5.0], "bbox_mode": BoxMode.XYXY_ABS}
    voc.add("a")
    record = {
        "file_name": str(voc.images / "a.jpg"),
        "source": "a.xml",
        "width": 1,
        "height": 1,
        "annotations": [box],
    }
    (image,) = clean([record], Flaws())
    assert boxes(image) == [[0, 0, 5, 5]]
    assert record["annotations"] == [{"bbox": [-3.0, 0.0, 5.0, 5.0], "bbox_mode": box["bbox_mode"]}]
    assert (record["width"], record["source"]) == (1, "a.xml")
    assert "source" not in image


def test_an_image_in_a_closed_folder_is_not_called_missing(monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.stat", refuse)
    with pytest.raises(UserError, match=r"a\.png: cannot be read \(Permission denied\)"):
        image_size("a.png")
