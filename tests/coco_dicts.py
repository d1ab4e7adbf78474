"""Reads COCO files as Detectron2's dataset dicts, as `apdet.data.register` does."""

from apdet.data.coco import read_coco
from apdet.data.records import to_dataset_dicts


def load_coco(json_file, images, *, class_names=None):
    """The dataset dicts of a file; by default with all categories, in the order of their ids."""
    records = read_coco(json_file, images)
    names = records.class_names if class_names is None else class_names
    return to_dataset_dicts(records, names, str(json_file))
