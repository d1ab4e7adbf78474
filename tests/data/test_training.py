import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from apdet.data.training import check_batch_size, training_dicts
from apdet.errors import UserError


def box(**flags):
    return {"bbox": [0, 0, 5, 5], "bbox_mode": 0, "category_id": 0, "iscrowd": 0, **flags}


DIFFICULT = box(iscrowd=1, difficult=1)
CROWD = box(iscrowd=1)


def settings(*images, keep_empty=False, on_difficult=False, mask_format=""):
    dicts = [{"file_name": str(i), "annotations": list(boxes)} for i, boxes in enumerate(images)]
    DatasetCatalog.register("some", lambda: dicts)
    MetadataCatalog.get("some").thing_classes = ["thing"]
    return CfgNode(
        {
            "DATASETS": {"TRAIN": ["some"], "TRAIN_ON_DIFFICULT": on_difficult},
            "DATALOADER": {"FILTER_EMPTY_ANNOTATIONS": not keep_empty},
            "MODEL": {"MASK_ON": bool(mask_format)},
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
    [([[], []], "has no annotated box to train on"), ([[DIFFICULT]], "only boxes that are")],
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


POLYGON = box(segmentation=[[0, 0, 5, 0, 5, 5]])
RLE = box(segmentation={"size": [5, 5], "counts": "0"})


def test_masks_are_there_in_the_format_that_is_trained():
    assert names(settings([POLYGON, CROWD], mask_format="polygon")) == ["0"]
    DatasetCatalog.remove("some")
    assert names(settings([POLYGON, RLE], mask_format="bitmask")) == ["0"]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([POLYGON, box()], "^1: an object has no mask, but use_instance_mask is True"),
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
