"""Reads which images a data set in COCO's format has, and which ids its classes have."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from apdet.data.class_names import ClassNumbers
from apdet.data.coco import read_coco
from apdet.errors import UserError
from apdet.evaluation.coco_ids import number_images
from apdet.inference.sources import SourceImage, names_below_common_folder


def read_coco_set(
    json_file: str, folder: str, class_names: Sequence[str], wanted: Iterable[int]
) -> tuple[list[SourceImage], dict[int, int]]:
    """Read the images and the ids of a data set in COCO's format.

    Args:
        json_file: the file with its images and categories.
        folder: the folder of the images; empty: that of ``json_file``.
        class_names: the classes of the model. They are found in the file as in an evaluation.
        wanted: the numbers of the classes that are predicted.

    Returns:
        The images, with the ids of the file if all are integers; and {class: category id}.

    Raises:
        UserError: the file is missing or malformed, or lacks a class.
    """
    records = read_coco(json_file, folder or Path(json_file).parent)
    numbers, classes = ClassNumbers(class_names), {}
    for category_id, name in sorted((records.category_ids or {}).items(), reverse=True):
        number = numbers.find(name)
        if number is not None:
            classes[number] = category_id
    lacking = [class_names[k] for k in wanted if k not in classes]
    if lacking:
        raise UserError(
            f"{json_file}: it has no category {', '.join(map(repr, lacking))} of the model, but "
            f"{', '.join(map(repr, records.class_names))}; add the category to the file, or name "
            "by --classes what to predict"
        )
    ids = number_images(image["image_id"] for image in records.images)
    paths = [os.path.abspath(image["file_name"]) for image in records.images]
    names = names_below_common_folder(paths)
    images = [SourceImage(*entry) for entry in zip(ids.values(), paths, names, strict=True)]
    return images, classes
