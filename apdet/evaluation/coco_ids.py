"""The ids of images and classes in files in COCO's format. They are integers."""

from collections import Counter
from collections.abc import Hashable, Iterable
from numbers import Integral
from typing import Any

from detectron2.data.catalog import Metadata

from apdet.errors import UserError


def number_images(image_ids: Iterable[Hashable]) -> dict[Any, int]:
    """Map the id of each image of a data set to its id in files in COCO's format.

    If all ids are integers, they stay. Otherwise the images are numbered from 1 on.

    Args:
        image_ids: the ids of all images, in the order of the data set.

    Returns:
        {id in the data set: id in files}, in the order of the data set.

    Raises:
        UserError: two images have the same id.
        TypeError: the ids are not all integers and come as a set, which has no order.
    """
    ids: list[Any] = list(image_ids)
    if len(set(ids)) < len(ids):
        (image_id, count), *_ = Counter(ids).most_common(1)
        raise UserError(f"{count} images have the id {image_id!r}; give each its own image_id")
    integers = {i: int(i) for i in ids if isinstance(i, Integral) and not isinstance(i, bool)}
    if len(integers) == len(ids):
        return integers
    if isinstance(image_ids, set | frozenset):
        raise TypeError("give the image ids in the order of the data set, not as a set")
    return {image_id: number for number, image_id in enumerate(ids, 1)}


def category_ids(metadata: Metadata) -> dict[int, int]:
    """Map each class of a data set to its category id in files in COCO's format.

    Args:
        metadata: Detectron2's metadata of the data set. The category ids are those of its
            ``thing_dataset_id_to_contiguous_id``. Without it, the classes are category ids.
    """
    classes = metadata.get("thing_dataset_id_to_contiguous_id")
    if classes is None:
        return {k: k for k in range(len(metadata.thing_classes))}
    return {k: category_id for category_id, k in classes.items()}
