"""Reads annotations in COCO's format: one JSON file for all images."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode
from pycocotools import mask as mask_util

from apdet.data.records import Records, to_dataset_dicts
from apdet.errors import UserError


def load_coco(
    json_file: str | os.PathLike,
    images: str | os.PathLike,
    *,
    class_names: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Load images with boxes in COCO's format as Detectron2's dataset dicts.

    There are three differences from Detectron2's own loader. Classes are identified by their names,
    so the files of training and test may number them differently. A box is kept even if its mask is
    invalid. Errors name the file and the annotation. Keypoints are not read, and polygons with
    fewer than three corners are dropped.

    Args:
        json_file: a file in COCO's "instances" format.
        images: folder of the images; the file names in ``json_file`` start from it.
        class_names: the classes in order; the index of a class becomes its ``category_id``. None:
            the categories of the file, in the order of their ids.

    Returns:
        Dataset dicts. They have no "annotations" if the file has none, such as the file of COCO's
        test images.

    Raises:
        UserError: a file is missing or malformed.
    """
    records = read_coco(json_file, images)
    names = records.class_names if class_names is None else class_names
    return to_dataset_dicts(records, names, str(json_file))


def read_coco(json_file: str | os.PathLike, images: str | os.PathLike) -> Records:
    """Read a file for `load_coco`, without numbering classes or checking boxes and image sizes."""
    path = Path(json_file)
    content = _parse(path)
    if not Path(images).is_dir():
        raise UserError(f"{images}: no such folder of images; correct the path")
    categories = _read_categories(content, path)
    records = _read_images(content, path, Path(images))
    if "annotations" in content:
        for record in records.values():
            record["annotations"] = []
        for position, annotation in enumerate(_list(content, "annotations", path)):
            where = f"{path}: annotation {_id(annotation, position)}"
            image_id, box = _read_annotation(annotation, where, records, categories)
            records[image_id]["annotations"].append(box)
    names = [categories[category_id] for category_id in sorted(categories)]
    return Records(list(records.values()), names, categories)


def _parse(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such JSON file; correct the path")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: broken JSON ({error}); correct it or write it anew") from error
    if not isinstance(content, dict):
        raise UserError(f'{path}: not in COCO\'s format; write a mapping with "images" in it')
    return content


def _list(content: dict[str, Any], key: str, path: Path) -> list[Any]:
    values = content.get(key)
    if not isinstance(values, list):
        raise UserError(f'{path}: "{key}" is missing or no list; write it in COCO\'s format')
    return values


def _id(value: Any, position: int) -> str:
    has_id = isinstance(value, dict) and "id" in value
    return f"of id {value['id']}" if has_id else f"number {position + 1}"


def _fields(value: Any, types: dict[str, type | tuple[type, ...]], where: str) -> list[Any]:
    """Read the values of some keys, which must exist and have the given types."""
    for key, expected in types.items():
        found = value.get(key) if isinstance(value, dict) else None
        if not isinstance(found, expected) or isinstance(found, bool):
            raise UserError(f'{where}: "{key}" is {found!r}; write it in COCO\'s format')
    return [value[key] for key in types]


def _read_categories(content: dict[str, Any], path: Path) -> dict[int, str]:
    categories: dict[int, str] = {}
    for position, category in enumerate(_list(content, "categories", path)):
        where = f"{path}: category {_id(category, position)}"
        category_id, name = _fields(category, {"id": int, "name": str}, where)
        if category_id in categories or name in categories.values():
            raise UserError(f"{where}: its id or its name {name!r} is there twice; remove one")
        categories[category_id] = name
    if not categories:
        raise UserError(f'{path}: "categories" is empty; list the classes there')
    return categories


def _read_images(content: dict[str, Any], path: Path, folder: Path) -> dict[Any, dict[str, Any]]:
    """Read the images by their ids, in the order of the ids, as Detectron2 does."""
    records: dict[Any, dict[str, Any]] = {}
    for position, image in enumerate(_list(content, "images", path)):
        where = f"{path}: image {_id(image, position)}"
        image_id, file_name = _fields(image, {"id": (int, str), "file_name": str}, where)
        if image_id in records:
            raise UserError(f"{where}: this id is there twice; remove one")
        records[image_id] = {
            "file_name": str(folder / file_name),
            "image_id": image_id,
            "height": image.get("height"),
            "width": image.get("width"),
            "source": str(path),
        }
    if not records:
        raise UserError(f'{path}: "images" is empty; list the images there')
    return dict(sorted(records.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _read_annotation(
    annotation: Any, where: str, records: dict[Any, Any], categories: dict[int, str]
) -> tuple[Any, dict[str, Any]]:
    image_id, category_id, bbox = _fields(
        annotation, {"image_id": (int, str), "category_id": int, "bbox": list}, where
    )
    if image_id not in records:
        raise UserError(f'{where}: image_id {image_id!r} is not in "images"; add it there')
    if category_id not in categories:
        raise UserError(f'{where}: category_id {category_id} is not in "categories"; add it there')
    if len(bbox) != 4 or not all(_is_finite(value) for value in bbox):
        raise UserError(
            f"{where}: bbox is {bbox}; write four finite numbers, [x, y, width, height]"
        )
    x, y, width, height = map(float, bbox)
    # Some tools write "ignore" in place of COCO's "iscrowd".
    iscrowd = int(bool(annotation.get("iscrowd")) or bool(annotation.get("ignore")))
    mask = _read_mask(annotation.get("segmentation"))
    return image_id, {
        **({"segmentation": mask} if mask else {}),
        "category": categories[category_id],
        "bbox": [x, y, x + width, y + height],
        "bbox_mode": BoxMode.XYXY_ABS,
        "iscrowd": iscrowd,
    }


def _read_mask(segmentation: Any) -> Any:
    """Read a mask: compressed RLE, or the list of valid polygons; None if it is neither."""
    if isinstance(segmentation, dict) and isinstance(segmentation.get("size"), list):
        is_raw = isinstance(segmentation.get("counts"), list)
        return (
            mask_util.frPyObjects(segmentation, *segmentation["size"]) if is_raw else segmentation
        )
    if not isinstance(segmentation, list):
        return None
    return [
        polygon
        for polygon in segmentation
        if isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and all(_is_finite(value) for value in polygon)
    ]


def _is_finite(value: Any) -> bool:
    # math.isfinite raises an error for an int that is too large for a float.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
