"""Reads annotations in COCO's format: one JSON file for all images."""

import os
import re
import reprlib
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from apdet.data.clean import in_order
from apdet.data.coco_file import (
    LIST,
    NUMBER,
    NUMBER_OR_TEXT,
    TEXT,
    entries,
    entry_name,
    fields,
    parse_file,
)
from apdet.data.flaws import Flaws
from apdet.data.garbage import no_garbage_collection
from apdet.data.keypoints import Skeleton, read_keypoints, read_skeleton
from apdet.data.masks import is_finite, read_mask
from apdet.data.records import Records
from apdet.data.truth import parse_truth
from apdet.errors import UserError


@no_garbage_collection()
def read_coco(json_file: str | os.PathLike, images: str | os.PathLike) -> Records:
    """Read images with boxes, masks and keypoints in COCO's format.

    There are two differences from Detectron2's own loader. Classes are identified by their names,
    so the files of training and test may number them differently. A box is kept even if its mask is
    invalid; the flaws are counted in the log.

    Args:
        json_file: a file in COCO's "instances" or "person_keypoints" format.
        images: folder of the images; the file names in ``json_file`` start from it.

    Returns:
        The content. Its images have no "annotations" if the file has none, such as the file of
        COCO's test images.

    Raises:
        UserError: a file is missing or malformed.
    """
    path, flaws = Path(json_file), Flaws()
    content = parse_file(path)
    if not os.path.isdir(images):
        raise UserError(f"{images}: no such folder of images; correct the path")
    categories = _read_categories(content, path, flaws)
    skeleton = read_skeleton(content["categories"], str(path))
    records = _read_images(content, path, Path(images), flaws)
    if "annotations" in content:
        reader = _AnnotationReader(records, categories, skeleton, flaws)
        for record in records.values():
            record["annotations"] = []
        place = f"{path}: annotation"  # once, because it takes long
        annotations = entries(content, "annotations", path)
        for position, annotation in enumerate(annotations):
            annotations[position] = None  # millions of boxes stand in memory once, and not twice
            where = f"{place} {entry_name(annotation, position)}"
            image_id, box = reader.read(annotation, where)
            records[image_id]["annotations"].append(box)
    flaws.log(str(path))
    names = [categories[category_id] for category_id in sorted(categories)]
    return Records(list(records.values()), names, categories, skeleton)


def _read_categories(content: dict[str, Any], path: Path, flaws: Flaws) -> dict[int, str]:
    categories: dict[int, str] = {}
    for position, category in enumerate(entries(content, "categories", path)):
        where = f"{path}: category {entry_name(category, position)}"
        category_id, name = fields(category, {"id": NUMBER, "name": TEXT}, where)
        if name != " ".join(name.split()):
            flaws.add("names of categories had needless spaces, which were removed", where)
            name = " ".join(name.split())
        if not name:
            raise UserError(f"{where}: its name is empty; write the class there")
        if category_id in categories or name in categories.values():
            raise UserError(f"{where}: its id or its name {name!r} is there twice; remove one")
        categories[category_id] = name
    if not categories:
        raise UserError(f'{path}: "categories" is empty; list the classes there')
    return categories


def _read_images(
    content: dict[str, Any], path: Path, folder: Path, flaws: Flaws
) -> dict[Any, dict[str, Any]]:
    """Read the images by their ids, in the order of the ids if there is one, as Detectron2 does."""
    records: dict[Any, dict[str, Any]] = {}
    texts: set[str] = set()
    files: set[str] = set()
    for position, image in enumerate(entries(content, "images", path)):
        where = f"{path}: image {entry_name(image, position)}"
        image_id, file_name = fields(image, {"id": NUMBER_OR_TEXT, "file_name": TEXT}, where)
        # 1 and "1" would be told apart here, but hardly by other programs.
        if str(image_id) in texts:
            raise UserError(f"{where}: this id is there twice; remove one")
        texts.add(str(image_id))
        file = str(folder / file_name)
        whole_name = os.path.normpath(file)
        if whole_name in files:
            flaws.add("images have the file of another image", where)
        files.add(whole_name)
        records[image_id] = {
            "file_name": file,
            "image_id": image_id,
            "height": _read_size(image.get("height")),
            "width": _read_size(image.get("width")),
            "source": str(path),
        }
    if not records:
        raise UserError(f'{path}: "images" is empty; list the images there')
    try:
        return dict(sorted(records.items(), key=lambda item: item[0]))
    except TypeError:  # numbers and texts have no order
        return records


def _read_size(value: Any) -> int | None:
    """A side in pixels; None if it is not known. The image itself tells its true size."""
    is_number = isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value.strip())
    return int(value) if is_number else value or None


_FIELDS = {"image_id": NUMBER_OR_TEXT, "category_id": NUMBER, "bbox": LIST}


class _AnnotationReader:
    """Reads the annotations of a file."""

    def __init__(
        self,
        images: dict[Any, Any],
        categories: dict[int, str],
        skeleton: Skeleton | None,
        flaws: Flaws,
    ):
        """Set the other content of the file, and the flaws, which the reader counts."""
        self.images, self.categories = images, categories
        self.skeleton, self.flaws = skeleton, flaws

    def read(self, annotation: Any, where: str) -> tuple[Any, dict[str, Any]]:
        """Read an annotation.

        Returns:
            The id of the image, and the annotation in the form of `Records`.
        """
        image_id, category_id, bbox = fields(annotation, _FIELDS, where)
        if image_id not in self.images:
            same_text = [known for known in self.images if str(known) == str(image_id)]
            remedy = f"write {same_text[0]!r} as it stands there" if same_text else "add it there"
            raise UserError(f'{where}: image_id {image_id!r} is not in "images"; {remedy}')
        if category_id not in self.categories:
            raise UserError(
                f'{where}: category_id {category_id} is not in "categories"; add it there'
            )
        box = {
            "category": self.categories[category_id],
            "bbox": self._read_box(bbox, where),
            "bbox_mode": BoxMode.XYXY_ABS,
            # Some tools write "ignore" in place of COCO's "iscrowd".
            "iscrowd": int(
                _truth(annotation, "iscrowd", where) or _truth(annotation, "ignore", where)
            ),
        }
        mask, flaw = read_mask(annotation.get("segmentation"))
        if flaw:
            self.flaws.add(flaw, where)
        if mask:
            box["segmentation"] = mask
        if self.skeleton:
            values, number = annotation.get("keypoints"), len(self.skeleton.names)
            box["keypoints"] = read_keypoints(values, number, where)
        elif annotation.get("keypoints"):
            self.flaws.add("annotations have keypoints that no category names; left out", where)
        return image_id, box

    def _read_box(self, bbox: list[Any], where: str) -> list[float]:
        if len(bbox) != 4 or not all(map(is_finite, bbox)):
            raise UserError(
                f"{where}: bbox is {reprlib.repr(bbox)}; write four finite numbers, "
                "[x, y, width, height]"
            )
        x, y, width, height = map(float, bbox)
        return in_order([x, y, x + width, y + height], self.flaws, where)


def _truth(annotation: dict[str, Any], key: str, where: str) -> bool:
    value = annotation.get(key)
    if value is None or (value == 0 and type(value) is int):  # as almost always
        return False
    truth = parse_truth(value)
    if truth is None:
        raise UserError(f'{where}: "{key}" is {reprlib.repr(annotation[key])}; write 0 or 1')
    return truth
