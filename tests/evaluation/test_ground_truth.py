import copy
import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from apdet.evaluation.ground_truth import (
    is_annotated,
    is_declared_unannotated,
    measurable_tasks,
    write_ground_truth,
)

BOX = [10, 20, 60, 50]
# COCO's data format (cocodataset.org/#format-data): the type of each entry.
STRICT = {
    "images": {"id": int, "width": int, "height": int, "file_name": str},
    "annotations": {
        "id": int,
        "image_id": int,
        "category_id": int,
        "segmentation": (list, dict),
        "area": (int, float),
        "bbox": list,
        "iscrowd": int,
    },
    "categories": {"id": int, "name": str, "supercategory": str},
}


def assert_is_strict(content):
    assert all(isinstance(value, str) for value in content["info"].values())
    assert content["licenses"] == []
    for part, types in STRICT.items():
        for entry in content[part]:
            for key, expected in types.items():
                assert isinstance(entry[key], expected), (part, key, entry)
                assert not isinstance(entry[key], bool), (part, key, entry)
        ids = [entry["id"] for entry in content[part]]
        assert len(set(ids)) == len(ids)
    for annotation in content["annotations"]:
        assert annotation["id"] > 0  # to COCOeval an id of 0 means "not matched"
        assert annotation["iscrowd"] in (0, 1)
        assert len(annotation["bbox"]) == 4


def written(name, folder):
    return json.loads(write_ground_truth(name, folder).read_text())


@pytest.fixture
def rich_images(make_image):
    """Images with a polygon, a mask of bytes and keypoints."""
    bitmap = np.zeros((160, 200), dtype=np.uint8, order="F")
    bitmap[20:50, 10:60] = 1
    images = [make_image("a", [BOX, BOX], [0, 1]), make_image("b", [BOX], [2], ignored=[1])]
    polygon, rle = images[0]["annotations"]
    polygon.update(segmentation=[[10, 20, 60, 20, 60, 50]], keypoints=[12.5, 30.5, 2, 0.5, 0.5, 0])
    rle["segmentation"] = mask_util.encode(bitmap)
    return images


@pytest.mark.parametrize("ids", [["a", "b"], [7, "b"], [7, 3]])
def test_a_strict_reader_takes_the_file(register, rich_images, tmp_path, ids):
    for image, image_id in zip(rich_images, ids, strict=True):
        image.update(image_id=image_id, file_name=f"{image_id}.jpg")
    register("pets", rich_images)
    content = written("pets", tmp_path)
    assert_is_strict(content)
    assert [image["file_name"] for image in content["images"]] == [f"{i}.jpg" for i in ids]
    if ids == [7, 3]:
        assert [image["id"] for image in content["images"]] == ids
    else:
        assert [(i["id"], i["name"]) for i in content["images"]] == [(1, str(ids[0])), (2, "b")]
    coco = COCO(str(tmp_path / "pets_coco_format.json"))
    first, second = coco.getImgIds() if ids != [7, 3] else ids
    assert [a["bbox"] for a in coco.imgToAnns[first]] == [[10, 20, 50, 30]] * 2
    assert [a["iscrowd"] for a in coco.imgToAnns[second]] == [1]
    assert [coco.annToMask(a).sum() for a in coco.imgToAnns[first]] == pytest.approx(
        [750, 1500], rel=0.05
    )


def test_a_data_set_without_a_box_has_an_empty_list_of_them(register, make_image, tmp_path):
    register("empty", [make_image("a")])
    content = written("empty", tmp_path)
    assert_is_strict(content)
    assert content["annotations"] == []


def test_a_second_file_is_the_same_and_the_data_set_stays_as_it_is(register, rich_images, tmp_path):
    register("pets", rich_images)
    before, names = copy.deepcopy(rich_images), set(DatasetCatalog)
    first = write_ground_truth("pets", tmp_path / "first").read_bytes()
    assert write_ground_truth("pets", tmp_path / "second").read_bytes() == first
    assert rich_images == before
    assert set(DatasetCatalog) == names
    assert MetadataCatalog.get("pets").get("json_file") is None


def test_only_a_data_set_without_any_annotations_entry_is_unannotated(
    register, make_image, tmp_path
):
    with_box, without = [make_image(1, [BOX], [0])], [make_image(1)]
    bare = [{"file_name": "", "image_id": 1, "height": 9, "width": 9}]
    register("boxes", with_box)
    assert is_annotated("boxes", with_box)
    assert is_annotated("boxes", without)
    assert not is_annotated("boxes", bare)
    register("said", with_box, annotated=False)
    assert not is_annotated("said", with_box)
    for entry, expected in [({}, False), ({"annotations": []}, True)]:
        file = tmp_path / f"{expected}.json"
        file.write_text(json.dumps({"images": [{"id": 1}], **entry}))
        register(f"file {expected}", without, json_file=str(file))
        assert is_annotated(f"file {expected}", without) is expected
        # COCO's own test sets are files without "annotations".
        assert is_declared_unannotated(f"file {expected}", without) is not expected


@pytest.mark.parametrize(
    ("metadata", "declared"),
    [
        ({}, False),
        ({"annotated": True, "declared_unannotated": False}, False),
        ({"annotated": False, "declared_unannotated": False}, False),
        ({"annotated": False, "declared_unannotated": True}, True),
        ({"annotated": False}, True),  # said by a user's own code
    ],
)
def test_a_data_set_is_unannotated_only_if_it_says_so(register, make_image, metadata, declared):
    register("pets", [make_image(1)], **metadata)
    assert is_declared_unannotated("pets", [make_image(1)]) is declared


def test_masks_are_measured_if_every_object_has_one():
    masked, bare = {"segmentation": [[0, 0, 9, 0, 9, 9]]}, {"segmentation": []}
    assert measurable_tasks(["bbox", "segm"], [masked, masked]) == ["bbox", "segm"]
    for objects in ([masked, bare], [masked, {}]):
        assert measurable_tasks(["bbox", "segm"], objects) == ["bbox"]
