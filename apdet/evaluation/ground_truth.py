"""Says what can be measured on a data set, and writes its ground truth in COCO's format."""

import contextlib
import copy
import io
import json
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.data.datasets.coco import convert_to_coco_dict
from detectron2.utils import comm
from pycocotools.coco import COCO

from apdet.data.temporary_set import temporary_data_set
from apdet.evaluation.coco_ids import number_images
from apdet.files import whole_file

logger = logging.getLogger(__name__)

DatasetDicts = Sequence[Mapping[str, Any]]


def is_annotated(dataset_name: str, dataset_dicts: DatasetDicts) -> bool:
    """Whether a data set has ground truth, be it that there is no object in its images.

    Args:
        dataset_name: the name of a registered data set.
        dataset_dicts: its images.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if not metadata.get("annotated", True):
        return False
    if any(image.get("annotations") for image in dataset_dicts):
        return True
    if metadata.get("json_file") is not None:
        # Detectron2's loader gives the images of a file without annotations empty lists of them.
        return "annotations" in json.loads(Path(metadata.json_file).read_bytes())
    return any("annotations" in image for image in dataset_dicts)


def is_declared_unannotated(dataset_name: str, dataset_dicts: DatasetDicts) -> bool:
    """Whether a data set is meant to have no ground truth, so that predictions are all there is.

    So are the test sets of COCO and VOC 2012, and the data sets that say so in their metadata.

    Args:
        dataset_name: the name of a registered data set.
        dataset_dicts: its images.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("declared_unannotated", not metadata.get("annotated", True)):
        return True
    has_own_file = metadata.get("json_file") is not None
    return has_own_file and not is_annotated(dataset_name, dataset_dicts)


def measurable_tasks(tasks: Iterable[str], annotations: Iterable[Mapping[str, Any]]) -> list[str]:
    """Leave out the task "segm" if an object has no mask.

    Args:
        tasks: some of "bbox", "segm" and "keypoints".
        annotations: all objects of the data set.
    """
    has_masks = all(annotation.get("segmentation") for annotation in annotations)
    return [task for task in tasks if task != "segm" or has_masks]


@contextmanager
def ground_truth_file(dataset_name: str, folder: str, numbers: dict) -> Iterator[None]:
    """In this context, the metadata of the data set names a file with its ground truth.

    It is the data set's own file if there is one with integer image ids; else a file is written to
    ``folder``. Detectron2 would leave its path in the global catalog, where the next evaluator
    would read it as the data set's own file.
    """
    metadata = MetadataCatalog.get(dataset_name)
    own = metadata.get("json_file")
    if own is not None and all(image_id == number for image_id, number in numbers.items()):
        yield
        return
    with tempfile.TemporaryDirectory() as scratch:
        # Only one process writes to the folder.
        folder = folder if comm.is_main_process() else scratch
        _set_json_file(metadata, str(write_ground_truth(dataset_name, folder)))
        try:
            yield
        finally:
            _set_json_file(metadata, own)


def _set_json_file(metadata: Metadata, path: str | None) -> None:
    if "json_file" in vars(metadata):
        del metadata.json_file  # Metadata refuses to change a value
    if path is not None:
        metadata.json_file = path


def write_ground_truth(dataset_name: str, folder: str | os.PathLike) -> Path:
    """Write a data set as a file in COCO's format, ``<name>_coco_format.json``.

    Image ids are those of `number_images`; if they are not the ids of the data set, the entry
    "name" of an image holds the latter. The catalogs are not changed.

    Args:
        dataset_name: the name of a registered data set.
        folder: the folder of the file, which is made if it does not exist.

    Returns:
        The path of the file.

    Raises:
        UserError: two images have the same id, or the file cannot be written.
    """
    dataset_dicts = DatasetCatalog.get(dataset_name)
    numbers = number_images(image["image_id"] for image in dataset_dicts)
    content = _converted(dataset_name, dataset_dicts)
    for image in content["images"]:
        image_id = image["id"]
        image["id"] = numbers[image_id]
        if image_id != image["id"]:
            image["name"] = str(image_id)
    for annotation in content["annotations"]:
        annotation["image_id"] = numbers[annotation["image_id"]]
    path = Path(folder, f"{dataset_name}_coco_format.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(json.dumps(content).encode())
    return path


def _converted(dataset_name: str, dataset_dicts: list[dict[str, Any]]) -> dict[str, Any]:
    """Convert a data set by Detectron2, and add what strict readers of COCO's format ask for."""
    # Detectron2 takes the name of a data set, and changes its keypoints and masks in place.
    copied = f"{dataset_name} to convert"
    with temporary_data_set(
        copied, lambda: copy.deepcopy(dataset_dicts), _of_classes(dataset_name)
    ):
        content = convert_to_coco_dict(copied)
    return {
        "info": {"description": dataset_name, "version": "1.0"},
        "licenses": [],
        "images": content["images"],
        "categories": [{**category, "supercategory": ""} for category in content["categories"]],
        "annotations": [{"segmentation": [], **a} for a in content.get("annotations", [])],
    }


def _of_classes(dataset_name: str) -> dict[str, Any]:
    """The metadata of a data set on its classes."""
    metadata = MetadataCatalog.get(dataset_name)
    keys = ("thing_classes", "thing_dataset_id_to_contiguous_id")
    return {key: getattr(metadata, key) for key in keys if metadata.get(key) is not None}


def complete_annotations(
    coco: COCO, category_ids: dict[int, int] | None, dataset_name: str
) -> None:
    """Add what COCOeval needs to a user's file, and drop categories that the model does not know.

    Args:
        coco: the ground truth, changed in place.
        category_ids: the keys are the categories to keep; None: keep all.
        dataset_name: the name of the data set in warnings.
    """
    dataset = coco.dataset
    names = {c["id"]: c["name"] for c in dataset["categories"]}
    known = names.keys() if category_ids is None else names.keys() & category_ids.keys()
    annotations = [a for a in dataset["annotations"] if a["category_id"] in known]
    if dropped := Counter(
        names.get(a["category_id"], a["category_id"])
        for a in dataset["annotations"]
        if a["category_id"] not in known
    ):
        logger.warning(
            f"{dataset_name}: {dropped.total()} objects are not measured, because the model does "
            f"not know their classes: {dict(dropped)}"
        )
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number  # to COCOeval an id of 0 means "not matched"
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
    dataset["categories"] = [c for c in dataset["categories"] if c["id"] in known]
    dataset["annotations"] = annotations
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
