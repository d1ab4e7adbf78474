"""Reads annotations in PASCAL VOC's format: one XML file for each image."""

import logging
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException
from detectron2.structures import BoxMode

from apdet.data.records import Records, natural_sorted, to_dataset_dicts
from apdet.errors import UserError

logger = logging.getLogger(__name__)

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


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


def split_ids(root: str | os.PathLike, split: str) -> list[str]:
    """Read the image ids from the first column of ``ImageSets/Main/<split>.txt``.

    Raises:
        UserError: the file is missing, empty or not text; the message lists the splits.
    """
    path = Path(root) / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        splits = ", ".join(natural_sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
        raise UserError(f"{path}: no such split file; there are: {splits}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8: {error}") from error
    # Repeated ids are dropped: the loader would read two images, but the evaluators only one.
    ids = list(dict.fromkeys(line.split()[0] for line in lines if line.strip()))
    if not ids:
        raise UserError(f"{path}: the split is empty; write one image id a line")
    return ids


def read_voc(
    images: str | os.PathLike,
    annotations: str | os.PathLike,
    *,
    ids: Iterable[str] | None = None,
) -> Records:
    """Read files for `load_voc`, without numbering classes or checking boxes and image sizes."""
    images, annotations = Path(images), Path(annotations)
    image_files = _find_images(images)
    if ids is None:
        ids = natural_sorted(path.stem for path in annotations.glob("*.xml"))
        if not ids:
            raise UserError(f"{annotations}: no .xml file there; name the folder of annotations")
    xml_files = {image_id: annotations / f"{image_id}.xml" for image_id in ids}
    if not any(path.is_file() for path in xml_files.values()):
        logger.warning(
            f"{annotations}: none of the {len(xml_files)} .xml files is there; no ground truth"
        )
        return Records([_bare(i, image_files, images) for i in xml_files], [], None)
    records = [_read_image(i, path, image_files, images) for i, path in xml_files.items()]
    found = {box["category"] for record in records for box in record["annotations"]}
    return Records(records, natural_sorted(found), None)


def _find_images(folder: Path) -> dict[str, Path]:
    """Find the image files of a folder, by their names and by their stems."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images; correct the path")
    paths = [path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES]
    if not paths:
        raise UserError(f"{folder}: no image there; put {', '.join(_IMAGE_SUFFIXES)} files in it")
    # If several files have the same stem, the last one in the dict wins. So the preferred suffix,
    # the first one, must come last.
    paths.sort(key=lambda path: _IMAGE_SUFFIXES.index(path.suffix.lower()), reverse=True)
    return {path.stem: path for path in paths} | {path.name: path for path in paths}


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
    image_id: str, path: Path, image_files: dict[str, Path], folder: Path
) -> dict[str, Any]:
    root = _parse(path)
    stated = Path((root.findtext("filename") or "").strip()).name
    # <filename> is often out of date, so it counts only if its stem is the id, or if no image
    # file has the id.
    agrees = stated in image_files and Path(stated).stem == image_id
    image = image_files.get(stated if agrees or image_id not in image_files else image_id)
    if image is None:
        raise UserError(
            f"{path}: no such image {folder / image_id}.jpg, nor .jpeg, .png, .bmp; add it"
        )
    size = _child(root, "size", path)
    return {
        "file_name": str(image),
        "image_id": image_id,
        "height": int(_number(size, "height", path)),
        "width": int(_number(size, "width", path)),
        "annotations": [_read_object(element, path) for element in root.findall("object")],
        "source": str(path),
    }


def _parse(path: Path) -> Element:
    if not path.is_file():
        raise UserError(f"{path}: no such annotation file; add it or take its id out of the split")
    try:
        return defusedxml.ElementTree.parse(path, forbid_dtd=True).getroot()
    except DefusedXmlException as error:
        raise UserError(
            f"{path}: holds a DTD or entities, which may be harmful ({error}); remove them"
        ) from error
    except (ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path}: broken XML ({error}); correct it or write it anew") from error


def _read_object(element: Element, path: Path) -> dict[str, Any]:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise UserError(f"{path}: an <object> lacks its <name>; write the class there")
    box = _child(element, "bndbox", path)
    x0, y0, x1, y1 = (_number(box, key, path) for key in ("xmin", "ymin", "xmax", "ymax"))
    is_there = (element.findtext("difficult") or "").strip()
    difficult = int(_number(element, "difficult", path) != 0) if is_there else 0
    return {
        "category": name,
        "bbox": [x0 - 1, y0 - 1, x1, y1],
        "bbox_mode": BoxMode.XYXY_ABS,
        "iscrowd": difficult,
        "difficult": difficult,
    }


def _child(element: Element, tag: str, path: Path) -> Element:
    child = element.find(tag)
    if child is None:
        raise UserError(f"{path}: <{element.tag}> lacks its <{tag}>; add it")
    return child


def _number(element: Element, tag: str, path: Path) -> float:
    text = _child(element, tag, path).text
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{path}: <{tag}> is {text!r}; write a number there")
    return number
