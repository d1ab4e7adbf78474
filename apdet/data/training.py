"""The images that a detector is trained on."""

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.build import (
    filter_images_with_only_crowd_annotations,
    get_detection_dataset_dicts,
)

from apdet.errors import UserError


def training_dicts(cfg: CfgNode) -> list[dict]:
    """Dataset dicts of ``DATASETS.TRAIN``, without images that have no box to train on.

    Such images stay with ``DATALOADER.FILTER_EMPTY_ANNOTATIONS`` False. Difficult boxes of VOC are
    left out unless ``DATASETS.TRAIN_ON_DIFFICULT``, and crowds of COCO always are.

    Raises:
        UserError: no data set is named, one is not annotated, or none has a box.
    """
    names = list(cfg.DATASETS.TRAIN)
    if not names:
        raise UserError("DATASETS.TRAIN is empty; name the data sets to train on")
    bare = [name for name in names if not MetadataCatalog.get(name).get("annotated", True)]
    if bare:
        raise UserError(f"DATASETS.TRAIN {bare} has no annotated box to train on; take it out")
    dicts = get_detection_dataset_dicts(names, filter_empty=False)
    if not any(image.get("annotations") for image in dicts):
        raise UserError(f"DATASETS.TRAIN {names} has no annotated box to train on")
    if cfg.DATASETS.TRAIN_ON_DIFFICULT:
        dicts = [_with_difficult(image) for image in dicts]
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        dicts = filter_images_with_only_crowd_annotations(dicts)
    if not dicts:
        raise UserError(f"DATASETS.TRAIN {names} has only boxes that are difficult or crowds")
    return dicts


def _with_difficult(image: dict) -> dict:
    # The loader sets iscrowd on difficult boxes, by which Detectron2 leaves them out.
    annotations = [
        {**box, "iscrowd": 0} if box.get("difficult") else box for box in image["annotations"]
    ]
    return {**image, "annotations": annotations}
