"""Reads annotations in PASCAL VOC's format: one XML file for each image."""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from apdet.data.flaws import Flaws
from apdet.data.garbage import no_garbage_collection
from apdet.data.records import Records, natural_sorted, to_dataset_dicts
from apdet.data.voc_file import parse_file, read_objects, read_side
from apdet.data.voc_folder import find_images, find_unread_images, find_xml, split_ids
from apdet.errors import UserError

__all__ = ["load_voc", "read_voc", "split_ids"]

logger = logging.getLogger(__name__)


def load_voc(
    images: str | os.PathLike,
    annotations: str | os.PathLike,
    *,
    ids: Iterable[str] | None = None,
    class_names: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Load images with VOC annotations as Detectron2's dataset dicts.

    VOC counts pixels from 1 and includes the last pixel of a box, so 1 is subtracted from xmin and
    ymin. A difficult box has ``difficult`` and ``iscrowd`` 1: Detectron2 leaves it out in training,
    and the evaluations of COCO and VOC ignore it.

    Args:
        images: folder of the image files.
        annotations: folder of the XML files; it may be the same folder.
        ids: stems of the XML files to read. None: all XML files in the folder.
        class_names: the classes in order; the index of a class becomes its ``category_id``. None:
            all classes that occur, in natural order.

    Returns:
        Dataset dicts. They have no "annotations" if none of ``ids`` has an XML file.

    Raises:
        UserError: a file is missing or malformed.
    """
    records = read_voc(images, annotations, ids=ids)
    names = records.class_names if class_names is None else class_names
    return to_dataset_dicts(records, names, str(annotations))


@no_garbage_collection()
def read_voc(
    images: str | os.PathLike,
    annotations: str | os.PathLike,
    *,
    ids: Iterable[str] | None = None,
) -> Records:
    """Read files for `load_voc`, without numbering classes or checking boxes and image sizes."""
    images, annotations, flaws = Path(images), Path(annotations), Flaws()
    image_files = find_images(images)
    xml_files = find_xml(annotations, flaws)
    if ids is None and not xml_files:
        raise UserError(f"{annotations}: no .xml file there; name the folder of annotations")
    used = natural_sorted(xml_files) if ids is None else list(ids)
    if not any(image_id in xml_files for image_id in used):
        logger.warning(
            f"{annotations}: none of the {len(used)} .xml files is there; no ground truth"
        )
        return Records([_bare(i, image_files, images) for i in used], [], None)
    paths = {i: xml_files.get(i, annotations / f"{i}.xml") for i in used}
    records = [_read_image(i, path, image_files, images, flaws) for i, path in paths.items()]
    if ids is None:
        _count_unused(images, image_files, records, flaws)
    flaws.log(str(annotations))
    found = {box["category"] for record in records for box in record["annotations"]}
    return Records(records, natural_sorted(found), None)


def _count_unused(
    folder: Path, image_files: dict[str, Path], records: list[dict], flaws: Flaws
) -> None:
    """Count the images of a folder that are not in the data set."""
    unused = {str(path) for path in image_files.values()}
    for file_name in sorted(unused.difference(record["file_name"] for record in records)):
        flaws.add("images have no .xml file and are left out", file_name)
    for file_name in find_unread_images(folder):
        flaws.add("images are left out, because files with their suffix are not read", file_name)


def _bare(image_id: str, image_files: dict[str, Path], folder: Path) -> dict[str, Any]:
    if image_id not in image_files:
        raise UserError(f"{folder / image_id}.jpg: no such image; add it")
    file_name = str(image_files[image_id])
    return {
        "file_name": file_name,
        "image_id": image_id,
        "height": None,
        "width": None,
        "source": "",
    }


def _read_image(
    image_id: str, path: Path, image_files: dict[str, Path], folder: Path, flaws: Flaws
) -> dict[str, Any]:
    root = parse_file(path)
    stated = Path((root.findtext("filename") or "").strip()).name
    # <filename> is often out of date, so it counts only if its stem is the id, or if no image
    # file has the id.
    agrees = stated in image_files and Path(stated).stem == image_id
    image = image_files.get(stated if agrees or image_id not in image_files else image_id)
    if image is None:
        raise UserError(
            f"{path}: no such image {folder / image_id}.jpg, nor with another suffix of images; "
            "add it"
        )
    return {
        "file_name": str(image),
        "image_id": image_id,
        "height": read_side(root, "height", path),
        "width": read_side(root, "width", path),
        "annotations": read_objects(root, path, flaws),
        "source": str(path),
    }
