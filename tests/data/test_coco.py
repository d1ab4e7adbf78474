import json

import pytest
from detectron2.data.datasets.coco import load_coco_json
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from apdet.data.coco import load_coco
from apdet.errors import UserError


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


def test_a_file_without_annotations_gives_images_alone(coco):
    coco.add(1).add("b")
    del coco.content["annotations"]
    images = load(coco)
    assert [image["image_id"] for image in images] == [1, "b"]
    assert not any("annotations" in image for image in images)
    coco.content["annotations"] = []
    assert [image["annotations"] for image in load(coco)] == [[], []]


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
        ("annotations", {"bbox": [1e308, 2, 1e308, 4]}, "not finite; correct"),
        ("images", {"file_name": None}, 'image of id 1: "file_name" is None'),
        ("images", {"id": 2}, "image of id 2: this id is there twice; remove one"),
        ("images", {"id": 1.5}, 'image of id 1.5: "id" is 1.5'),
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
