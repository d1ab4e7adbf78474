"""Reads the annotation files that an entry of `register` names."""

import os
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from apdet.data.coco import read_coco
from apdet.data.division import divide
from apdet.data.entries import data_set_names, is_divided
from apdet.data.records import Records
from apdet.data.voc import read_voc, split_ids
from apdet.errors import ArgumentError, UserError

Reader = Callable[[], Records]


def entry_readers(entry: dict[str, Any]) -> dict[str, Reader]:
    """Make the functions that read the data sets of an entry, by the names of the data sets.

    Each reads its files once, when it is first called.
    """
    names = data_set_names(entry)
    if not is_divided(entry):
        return {names[0]: cache(partial(_read, entry))}
    folder = _images_folder(entry)
    parts = cache(lambda: divide(_read(entry), names, folder=folder, **entry["split"]))
    return dict(zip(names, (lambda: parts()[0], lambda: parts()[1]), strict=True))


def _images_folder(entry: dict[str, Any]) -> str:
    folder = entry["images"] if "images" in entry else os.path.join(entry["root"], "JPEGImages")
    return os.path.expanduser(folder)


def _read(entry: dict[str, Any]) -> Records:
    records = _read_files(entry, _images_folder(entry))
    if entry.get("annotated", True):
        return records
    boxes = sum(len(image.get("annotations", [])) for image in records.images)
    if boxes:
        raise ArgumentError(
            "register",
            "{entries}: {name!r} has `annotated: false`, but {boxes} boxes; remove the one or the "
            "other",
            name=entry["name"],
            boxes=boxes,
        )
    images = [{k: v for k, v in i.items() if k != "annotations"} for i in records.images]
    return records._replace(images=images)


def _read_files(entry: dict[str, Any], images: str) -> Records:
    if entry["format"] == "coco":
        return read_coco(os.path.expanduser(entry["json"]), images)
    if "root" not in entry:
        return read_voc(images, os.path.expanduser(entry["annotations"]))
    root = os.path.expanduser(entry["root"])
    if not os.path.isdir(root):
        raise UserError(f"{root}: no such folder; correct `root` of {entry['name']!r}")
    ids = None if is_divided(entry) else split_ids(root, entry["split"])
    return read_voc(images, os.path.join(root, "Annotations"), ids=ids)
