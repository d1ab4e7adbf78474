import json

import numpy as np
import pytest
from coco_dicts import load_coco
from detectron2.data.datasets.builtin_meta import (
    COCO_PERSON_KEYPOINT_FLIP_MAP,
    COCO_PERSON_KEYPOINT_NAMES,
)
from detectron2.data.datasets.coco import load_coco_json
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from apdet.data.coco import read_coco
from apdet.data.masks import read_mask
from apdet.errors import UserError

bits = st.integers(0, 1)


def load(coco, **kwargs):
    return load_coco(coco.write().json, coco.images, **kwargs)


def test_a_clean_file_is_read_as_by_detectron2(coco, tmp_path):
    coco = type(coco)(tmp_path / "gaps", categories=[(90, "dog"), (3, "cat"), (17, "owl")])
    coco.add(42, [(3, 1, 2, 10, 5), (90, 0, 0, 40, 30)]).add(7, [(17, 2.5, 3.5, 4.25, 5, 1)])
    coco.add(13, size=(64, 48))
    ours = load(coco)
    theirs = load_coco_json(str(coco.json), str(coco.images), "clean_coco")
    for image in ours:
        for annotation in image["annotations"]:
            x0, y0, x1, y1 = annotation["bbox"]
            annotation.update(bbox=[x0, y0, x1 - x0, y1 - y0], bbox_mode=1)  # XYWH_ABS
    assert [image["image_id"] for image in ours] == [7, 13, 42]
    assert ours == theirs


def test_classes_are_known_by_name_whatever_their_ids(coco, tmp_path):
    coco.add(1, [(1, 0, 0, 5, 5), (2, 0, 0, 6, 6)])
    other = type(coco)(tmp_path / "other", categories=[(8, "cat"), (5, "dog")])
    other.add(1, [(8, 0, 0, 5, 5), (5, 0, 0, 6, 6)])
    names = ["dog", "cat"]
    for folder in (coco, other):
        (image,) = load(folder, class_names=names)
        classes = {a["bbox"][2]: names[a["category_id"]] for a in image["annotations"]}
        assert classes == {5: "cat", 6: "dog"}


def test_a_class_that_is_not_listed_is_named(coco):
    coco.add(1, [(2, 0, 0, 5, 5)])
    with pytest.raises(
        UserError, match=r"instances\.json: class 'dog' .*\['cat'\].*in class_names"
    ):
        load(coco, class_names=["cat"])


def test_masks_are_those_of_detectron2s_loader(coco):
    coco.add(1, [(1, 0, 0, 5, 5), (2, 1, 1, 5, 5), (1, 2, 2, 5, 5)])
    square = [1.0, 1, 6, 1, 6, 6, 1, 6]
    raw = {"counts": [100, 50, 1050], "size": [30, 40]}
    masks = [[square, [0, 0, 3, 3, 0, 3]], [[1, 1, 2], square], raw]
    for annotation, mask in zip(coco.content["annotations"], masks, strict=True):
        annotation["segmentation"] = mask
    (ours,) = load(coco)
    (theirs,) = load_coco_json(str(coco.json), str(coco.images))
    actual = [a["segmentation"] for a in ours["annotations"]]
    assert actual == [a["segmentation"] for a in theirs["annotations"]]
    assert mask_util.decode(actual[2]).sum() == 50


def test_a_box_counts_whatever_its_mask(coco):
    coco.add(1, [(1, 0, 0, 5, 5), (1, 1, 1, 5, 5), (1, 2, 2, 5, 5), (1, 3, 3, 5, 5)])
    masks = [[], [[1, 1, 2]], {"counts": [0, 1200]}, "a mask"]
    for annotation, mask in zip(coco.content["annotations"], masks, strict=True):
        annotation["segmentation"] = mask
    (image,) = load(coco)
    assert [a["bbox"][0] for a in image["annotations"]] == [0, 1, 2, 3]
    assert not any("segmentation" in a for a in image["annotations"])


def test_crowds_are_known_by_either_key(coco):
    coco.add(1, [(1, 0, 0, 5, 5, 1), (1, 0, 0, 5, 5, 0), (1, 0, 0, 5, 5)])
    coco.content["annotations"][2]["ignore"] = 1
    del coco.content["annotations"][1]["iscrowd"]
    (image,) = load(coco)
    assert [a["iscrowd"] for a in image["annotations"]] == [1, 0, 1]


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
@pytest.mark.parametrize(
    ("value", "crowd"),
    [("0", 0), ("1", 1), ("false", 0), ("True", 1), (None, 0), ("", 0), (0.0, 0), (1.0, 1)],
)
def test_truth_values_are_read_as_they_are_meant(coco, key, value, crowd):
    coco.add(1, [(1, 0, 0, 5, 5)])
    coco.content["annotations"][0][key] = value
    assert load(coco)[0]["annotations"][0]["iscrowd"] == crowd


@pytest.mark.parametrize("value", ["maybe", 2, -1, [0], {}])
def test_what_is_not_a_truth_value_is_named(coco, value):
    coco.add(1, [(1, 0, 0, 5, 5)])
    coco.content["annotations"][0]["iscrowd"] = value
    with pytest.raises(UserError, match=r'annotation of id 1: "iscrowd" is .*; write 0 or 1'):
        load(coco)


SIXTY = {"counts": [60, 1140], "size": [30, 40]}


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [30, 40]},
        {**SIXTY, "counts": [60, 1139]},
        {**SIXTY, "counts": [60, 1141]},
        {**SIXTY, "counts": [60, -60, 1200]},
        {**SIXTY, "counts": [60.0, 1140.0]},
        {**SIXTY, "counts": []},
        {**SIXTY, "counts": None},
        {**SIXTY, "counts": "é"},
        {**SIXTY, "counts": "!"},
        {**SIXTY, "counts": "lP0"},
        {**SIXTY, "counts": "o" * 50},
        {**SIXTY, "size": [30, 40, 1]},
        {**SIXTY, "size": [-30, -40]},
        {**SIXTY, "size": ["30", "40"]},
        {**SIXTY, "size": [40, 30]},
        {**SIXTY, "size": [60, 20]},
        {**SIXTY, "size": [2**31, 2**31]},
    ],
)
def test_a_malformed_run_length_encoding_is_dropped_and_counted(coco, rle, flaws):
    coco.add(1, [(1, 0, 0, 5, 5), (1, 1, 1, 5, 5)])
    for annotation, mask in zip(coco.content["annotations"], [rle, SIXTY], strict=True):
        annotation["segmentation"] = mask
    malformed, sound = load(coco)[0]["annotations"]
    assert "segmentation" not in malformed
    assert mask_util.area(sound["segmentation"]) == 1140
    (warning,) = flaws()
    assert "1 masks" in warning
    assert "their boxes are kept" in warning


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=bits))
def test_a_compressed_mask_is_taken_as_it_is(mask):
    rle = mask_util.encode(np.asfortranarray(mask))
    compressed = {"size": list(rle["size"]), "counts": rle["counts"].decode()}
    assert read_mask(compressed) == (compressed, "")
    height, width = mask.shape
    for size in ([height + 1, width], [height, width + 1]):
        assert read_mask({**compressed, "size": size})[0] is None


@pytest.mark.parametrize("dropped", [[1, 1, 2, 2], [0, 0, 3e300, 0, 5, 5], [0, 0, 5, 0, 5, "5"]])
def test_polygons_that_are_dropped_are_counted(coco, flaws, dropped):
    coco.add(1, [(1, 0, 0, 5, 5)])
    coco.content["annotations"][0]["segmentation"] = [[0, 0, 5, 0, 5, 5], dropped]
    (annotation,) = load(coco)[0]["annotations"]
    assert annotation["segmentation"] == [[0, 0, 5, 0, 5, 5]]
    assert "1 polygons have fewer than three corners" in flaws()[0]


def with_keypoints(coco):
    coco.add(1, [(1, 0, 0, 9, 9), (1, 2, 2, 5, 5)])
    names = ["nose", "left_eye", "right_eye"]
    coco.content["categories"] = [
        {"id": 1, "name": "cat", "keypoints": names, "skeleton": [[1, 2], [1, 3]]}
    ]
    coco.content["annotations"][0]["keypoints"] = [1, 2, 2, 3, 4, 1, 0, 0, 0]
    return coco


def test_keypoints_are_those_of_detectron2s_loader(coco):
    ours = load(with_keypoints(coco))[0]["annotations"]
    (theirs,) = load_coco_json(str(coco.json), str(coco.images))
    assert ours[0]["keypoints"] == theirs["annotations"][0]["keypoints"]
    assert ours[1]["keypoints"] == [0] * 9  # not labelled
    names, pairs, lines = read_coco(coco.json, coco.images).skeleton
    assert names == ["nose", "left_eye", "right_eye"]
    assert pairs == [("left_eye", "right_eye")]
    assert [line[:2] for line in lines] == [("nose", "left_eye"), ("nose", "right_eye")]


def test_cocos_own_keypoints_have_the_pairs_of_detectron2(coco):
    coco.add(1)
    coco.content["categories"][0]["keypoints"] = list(COCO_PERSON_KEYPOINT_NAMES)
    skeleton = read_coco(coco.write().json, coco.images).skeleton
    assert skeleton.flip_pairs == list(COCO_PERSON_KEYPOINT_FLIP_MAP)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("annotations", {"keypoints": [1, 2, 2]}, "annotation of id 1: .*each of the 3 keypoints"),
        ("annotations", {"keypoints": [None] * 9}, 'annotation of id 1: "keypoints" is'),
        ("annotations", {"keypoints": "none"}, 'annotation of id 1: "keypoints" is'),
        ("annotations", {"keypoints": [1, 2, 2, 3, 4, 3, 0, 0, 0]}, "the visibility 0, 1 or 2"),
        ("annotations", {"keypoints": [1, 2, 2, 3, 4, 0.5, 0, 0, 0]}, "the visibility 0, 1 or 2"),
        ("categories", {"keypoints": ["a", "a"]}, "write a list of different names"),
        ("categories", {"keypoints": "abc"}, "write a list of different names"),
        ("categories", {"skeleton": [[1, 9]]}, '"skeleton" .* numbers from 1 to 3'),
        ("categories", {"skeleton": 3}, '"skeleton" .* numbers from 1 to 3'),
    ],
)
def test_malformed_keypoints_are_named(coco, key, change, message):
    with_keypoints(coco).content[key][0].update(change)
    with pytest.raises(UserError, match=rf"instances\.json.*{message}"):
        load(coco)


def test_keypoints_without_names_are_counted(coco, flaws):
    del with_keypoints(coco).content["categories"][0]["keypoints"]
    assert "keypoints" not in load(coco)[0]["annotations"][0]
    assert "1 annotations have keypoints that no category names" in flaws()[0]


def test_needless_spaces_in_the_names_of_categories_are_removed_and_counted(coco, flaws):
    for category, name in zip(coco.content["categories"], (" cat ", "hot  dog"), strict=True):
        category["name"] = name
    assert read_coco(coco.add(1).write().json, coco.images).class_names == ["cat", "hot dog"]
    assert "2 names of categories had needless spaces" in flaws()[0]


@pytest.mark.parametrize("name", ["1.png", "./1.png", "../images/1.png"])
def test_a_file_that_two_images_name_is_counted(coco, flaws, name):
    coco.add(1).add(2).content["images"][1]["file_name"] = name
    assert len(load(coco)) == 2
    assert "1 images have the file of another image" in flaws()[0]


def test_a_file_that_cannot_be_read_is_named(coco, monkeypatch):
    coco.add(1).write()

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(UserError, match=r"instances\.json: cannot be read \(Permission denied\)"):
        read_coco(coco.json, coco.images)


def test_a_file_without_annotations_gives_images_alone(coco):
    coco.add(1).add("b")
    del coco.content["annotations"]
    images = load(coco)
    assert [image["image_id"] for image in images] == [1, "b"]
    assert not any("annotations" in image for image in images)
    coco.content["annotations"] = []
    assert [image["annotations"] for image in load(coco)] == [[], []]


@pytest.mark.parametrize("width", ["21", " 21", "", None])
def test_the_size_may_be_text(coco, flaws, width):
    coco.add(1, size=(21, 13)).content["images"][0]["width"] = width
    assert load(coco)[0]["width"] == 21
    assert flaws() == []


@pytest.mark.parametrize("width", ["x", "²", "9" * 5000, [21], 22])
def test_a_size_that_is_not_the_images_is_counted(coco, flaws, width):
    coco.add(1, size=(21, 13)).content["images"][0]["width"] = width
    assert load(coco)[0]["width"] == 21
    assert "1 images have another size than their annotations say" in flaws()[0]


def test_missing_sizes_are_taken_from_the_images(coco, flaws):
    coco.add(1, size=(21, 13))
    del coco.content["images"][0]["width"], coco.content["images"][0]["height"]
    (image,) = load(coco)
    assert (image["width"], image["height"]) == (21, 13)
    assert flaws() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "broken JSON"),
        ("", "broken JSON"),
        ("[" * 100_000, "broken JSON"),
        ("[]", "not in COCO's format; write a mapping"),
        ("{}", '"categories" is missing or no list'),
        ('{"categories": [{"id": 1, "name": "a"}]}', '"images" is missing or no list'),
        ('{"categories": [], "images": []}', '"categories" is empty'),
        ('{"categories": [{"id": 1, "name": "a"}], "images": []}', '"images" is empty'),
    ],
)
def test_what_is_not_coco_is_named(coco, text, message):
    coco.json.write_text(text)
    with pytest.raises(UserError, match=rf"instances\.json: {message}"):
        load_coco(coco.json, coco.images)


def test_missing_files_and_folders_are_named(coco, tmp_path):
    with pytest.raises(UserError, match=r"instances\.json: no such JSON file; correct the path"):
        load_coco(coco.json, coco.images)
    coco.add(1).write()
    with pytest.raises(UserError, match=r"none: no such folder of images; correct"):
        load_coco(coco.json, tmp_path / "none")
    (coco.images / "1.png").unlink()
    with pytest.raises(UserError, match=r"1\.png: no such image; add it"):
        load(coco)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("annotations", {"image_id": 99}, 'annotation of id 1: image_id 99 is not in "images"'),
        ("annotations", {"image_id": None}, 'annotation of id 1: "image_id" is None'),
        ("annotations", {"category_id": 9}, 'category_id 9 is not in "categories"; add'),
        ("annotations", {"category_id": "1"}, "\"category_id\" is '1'"),
        ("annotations", {"category_id": True}, '"category_id" is True'),
        ("annotations", {"bbox": [1, 2, 3]}, "annotation of id 1: .* write four finite numbers"),
        (
            "annotations",
            {"bbox": [1, 2, 3, "4"]},
            "annotation of id 1: .* write four finite numbers",
        ),
        (
            "annotations",
            {"bbox": [1, 2, 3, None]},
            "annotation of id 1: .* write four finite numbers",
        ),
        ("annotations", {"bbox": "1 2 3 4"}, "\"bbox\" is '1 2 3 4'"),
        ("annotations", {"bbox": [1, 2, 3, float("nan")]}, "write four finite numbers"),
        ("annotations", {"bbox": [1, 2, float("inf"), 4]}, "write four finite numbers"),
        ("annotations", {"bbox": [1, 2, 3, 10**400]}, "write four finite numbers"),
        ("annotations", {"bbox": [1e308, 2, 1e308, 4]}, "is not in pixels; correct"),
        ("images", {"file_name": None}, 'image of id 1: "file_name" is None'),
        ("images", {"id": 2}, "image of id 2: this id is there twice; remove one"),
        ("images", {"id": 1.5}, 'image of id 1.5: "id" is 1.5; write a number or a text'),
        ("images", {"id": "2"}, "image of id 2: this id is there twice; remove one"),
        ("annotations", {"image_id": "2"}, "image_id '2' is not in \"images\"; write 2 as it"),
        ("annotations", {"category_id": 1.0}, '"category_id" is 1.0; write a whole number'),
        ("annotations", {"bbox": [1, 2, 3e6, 4]}, "not in pixels; correct"),
        ("categories", {"id": 2}, "category of id 2: .* there twice; remove one"),
        ("categories", {"name": "dog"}, "its name 'dog' is there twice; remove one"),
        ("categories", {"name": 7}, '"name" is 7'),
    ],
)
def test_a_wrong_value_is_named_with_its_place(coco, key, change, message):
    coco.add(1, [(1, 0, 0, 5, 5)]).add(2)
    coco.content[key][0].update(change)
    with pytest.raises(UserError, match=rf"instances\.json.*{message}"):
        load(coco)


@pytest.mark.parametrize("key", ["annotations", "images", "categories"])
@pytest.mark.parametrize("value", [None, 3, "x", []])
def test_an_entry_that_is_no_mapping_is_named_by_its_position(coco, key, value):
    coco.add(1, [(1, 0, 0, 5, 5)])
    coco.content[key].insert(0, value)
    with pytest.raises(UserError, match=r"instances\.json: \w+ number 1: .* COCO's format"):
        load(coco)


def test_ids_of_images_are_those_of_the_file_for_the_evaluation_server(coco):
    coco.add(391895, [(1, 0, 0, 5, 5)]).add(522418)
    ids = [image["image_id"] for image in load(coco)]
    assert ids == COCO(coco.json).getImgIds()
    assert json.loads(json.dumps(ids)) == ids


def test_ids_of_two_kinds_keep_the_order_of_the_file(coco):
    coco.add("b", [(1, 0, 0, 5, 5)]).add(1).add("a")
    assert [image["image_id"] for image in load(coco)] == ["b", 1, "a"]


@pytest.mark.parametrize("box", [(1, 90, 90, 5, 5), (1, 3, 3, 0, 5)])
def test_a_file_of_which_no_box_is_left_is_named(coco, box):
    with pytest.raises(
        UserError, match=r"instances\.json: all 2 boxes are empty or wholly outside"
    ):
        load(coco.add(1, [box, box]).add(2))
