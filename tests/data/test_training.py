import logging

import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.structures import BoxMode
from detectron2.utils import comm

from apdet.data.training import check_batch_size, training_dicts
from apdet.errors import UserError


def box(**flags):
    return {"bbox": [0, 0, 5, 5], "bbox_mode": 0, "category_id": 0, "iscrowd": 0, **flags}


DIFFICULT = box(iscrowd=1, difficult=1)
CROWD = box(iscrowd=1)


def settings(*images, keep_empty=False, on_difficult=False, mask_format="", min_keypoints=None):
    dicts = [{"file_name": str(i), "annotations": list(boxes)} for i, boxes in enumerate(images)]
    DatasetCatalog.register("some", lambda: dicts)
    MetadataCatalog.get("some").thing_classes = ["thing"]
    return CfgNode(
        {
            "DATASETS": {"TRAIN": ["some"], "TRAIN_ON_DIFFICULT": on_difficult},
            "DATALOADER": {"FILTER_EMPTY_ANNOTATIONS": not keep_empty},
            "MODEL": {
                "MASK_ON": bool(mask_format),
                "KEYPOINT_ON": min_keypoints is not None,
                "ROI_KEYPOINT_HEAD": {"MIN_KEYPOINTS_PER_IMAGE": min_keypoints or 1},
            },
            "INPUT": {"MASK_FORMAT": mask_format},
        }
    )


def names(cfg):
    return [image["file_name"] for image in training_dicts(cfg)]


def test_images_without_a_box_to_train_on_are_left_out():
    assert names(settings([], [box()], [DIFFICULT], [CROWD], [CROWD, box()])) == ["1", "4"]


def test_images_without_a_box_stay_if_asked_for():
    assert names(settings([], [box()], keep_empty=True)) == ["0", "1"]


def test_difficult_boxes_are_trained_on_if_asked_for_but_crowds_never():
    cfg = settings([], [DIFFICULT], [CROWD], [DIFFICULT, CROWD], on_difficult=True)
    images = training_dicts(cfg)
    flags = [[a["iscrowd"] for a in image["annotations"]] for image in images]
    assert flags == [[0], [0, 1]]
    # The evaluation of the same set is not to change.
    assert DatasetCatalog.get("some")[1]["annotations"] == [DIFFICULT]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([[], []], "has no annotated box to train on"),
        ([[DIFFICULT]], "has no image to train on: 1 with only boxes that are difficult"),
    ],
)
def test_a_set_without_boxes_is_named(images, message):
    with pytest.raises(UserError, match=rf"^names \['some'\] .*{message}"):
        training_dicts(settings(*images))


def test_training_on_nothing_is_an_error():
    cfg = settings()
    cfg.DATASETS.TRAIN = []
    with pytest.raises(UserError, match=r"^names is empty"):
        training_dicts(cfg)


def test_a_set_without_annotations_is_not_trained_on_beside_one_with_them():
    cfg = settings([box()])
    DatasetCatalog.register("bare", lambda: [{"file_name": "0"}])
    MetadataCatalog.get("bare").set(thing_classes=["thing"], annotated=False)
    for names in (["some", "bare"], ["bare", "some"]):
        cfg.DATASETS.TRAIN = names
        with pytest.raises(UserError, match=r"\['bare'\] has no annotated box .*; take it out"):
            training_dicts(cfg)


def with_keypoints(*visibility):
    return box(keypoints=[number for v in visibility for number in (3.0, 4.0, v)])


@pytest.mark.parametrize("min_keypoints", [1, 2, 3, None])
def test_images_with_few_visible_keypoints_are_left_out_if_keypoints_are_trained(min_keypoints):
    images = ([with_keypoints(0, 0)], [with_keypoints(2, 0), with_keypoints(1, 0)], [box()])
    cfg = settings(*images, [with_keypoints(1, 2), with_keypoints(2, 2)], [with_keypoints(2, 0)],
                   min_keypoints=min_keypoints)  # fmt: skip
    expected = get_detection_dataset_dicts("some", min_keypoints=min_keypoints or 0)
    assert names(cfg) == [image["file_name"] for image in expected]


def test_images_that_are_left_out_are_counted_in_one_line(caplog, monkeypatch):
    for name in ("apdet.data.training_images", "detectron2.data.build"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", False)
        monkeypatch.setattr(logging.getLogger(name), "handlers", [caplog.handler])
        caplog.set_level(logging.INFO, name)
    images = ([], [], [CROWD, DIFFICULT], [with_keypoints(0)], [with_keypoints(2)])
    cfg = settings(*images, min_keypoints=1)
    assert names(cfg) == names(cfg) == ["4"]
    messages = [record.getMessage() for record in caplog.records]
    assert [message for message in messages if "istribution" not in message] == [
        "Training on 1 of 5 images; left out: 2 without a box (the first is 0), 1 with only boxes "
        "that are difficult or crowds (the first is 2), 1 with fewer than 1 keypoints (the first "
        "is 3)"
    ]


@pytest.fixture
def messages(caplog, monkeypatch):
    """A function that gives what the log says about boxes and classes so far."""
    for name in ("apdet.data.training_images", "apdet.data.class_names"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", False)
        monkeypatch.setattr(logging.getLogger(name), "handlers", [caplog.handler])
        caplog.set_level(logging.INFO, name)
    return lambda: [r.getMessage() for r in caplog.records if r.name.startswith("apdet.")]


def test_boxes_that_are_left_out_are_counted_in_one_line(messages):
    names(settings([box(), CROWD], [DIFFICULT, box(), CROWD]))
    (message,) = messages()
    assert message.startswith("Training on 2 boxes; 3 boxes are left out, because they are diff")


@pytest.mark.parametrize("on_difficult", [False, True])
def test_classes_without_a_box_to_train_on_are_said(messages, on_difficult):
    cfg = settings([box(), {**DIFFICULT, "category_id": 1}], on_difficult=on_difficult)
    MetadataCatalog.get("some").thing_classes[:] = ["thing", "rare", "absent"]
    names(cfg)
    assert f"some: no box of {'absent' if on_difficult else 'rare, absent'}" in messages()[-1]


def test_a_data_set_that_is_registered_anew_is_read_anew():
    assert names(settings([box()], [box()])) == ["0", "1"]
    DatasetCatalog.remove("some")
    assert names(settings([box()])) == ["0"]


def test_a_rotated_box_is_named_by_its_image():
    rotated = box(bbox=[5, 5, 4, 2, 30], bbox_mode=BoxMode.XYWHA_ABS)
    with pytest.raises(UserError, match=r"^1: a box is rotated"):
        names(settings([box()], [box(), rotated]))


POLYGON = box(segmentation=[[0, 0, 5, 0, 5, 5]])
RLE = box(segmentation={"size": [5, 5], "counts": "0"})


def test_masks_are_there_in_the_format_that_is_trained():
    assert names(settings([POLYGON, CROWD], mask_format="polygon")) == ["0"]
    DatasetCatalog.remove("some")
    assert names(settings([POLYGON, RLE], mask_format="bitmask")) == ["0"]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([POLYGON, box()], "^1: an object has no usable mask, but use_instance_mask is True"),
        ([RLE], "^1: .* set mask_format to 'bitmask'"),
    ],
)
def test_a_mask_that_cannot_be_trained_is_named_by_its_image(boxes, message):
    with pytest.raises(UserError, match=message):
        names(settings([POLYGON], boxes, mask_format="polygon"))


def test_a_batch_that_processes_cannot_share_is_named(monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    check_batch_size(4)
    with pytest.raises(UserError, match=r"^total_batch_size is 3, which 2 processes cannot share"):
        check_batch_size(3)
