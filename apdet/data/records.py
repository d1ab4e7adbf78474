"""The result of reading annotation files: dataset dicts with class names in place of numbers."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from apdet.data.class_names import ClassNumbers
from apdet.data.clean import clean
from apdet.data.flaws import Flaws
from apdet.data.garbage import no_garbage_collection
from apdet.data.image_sizes import Size, image_sizes
from apdet.data.keypoints import Skeleton
from apdet.errors import ArgumentError


class Records(NamedTuple):
    """The content of annotation files. Classes are not numbered and boxes are not checked."""

    # Detectron2's dataset dicts with two differences: "source" is the annotation file of the
    # image, and "category", the name of the class, takes the place of "category_id". An image
    # without annotations has no "annotations".
    images: list[dict[str, Any]]
    class_names: list[str]  # in the order of COCO's ids, or in natural order
    category_ids: dict[int, str] | None  # {id in the COCO file: class name}; None without such ids
    skeleton: Skeleton | None = None  # the keypoints of the objects; None without keypoints

    @property
    def annotated(self) -> bool:
        """Whether any image has annotations."""
        return any("annotations" in image for image in self.images)


def natural_sorted(names: Iterable[str]) -> list[str]:
    """Sort names in natural order: numbers in them by their values, so "2" comes before "10"."""

    def key(name: str) -> list[tuple[bool, int, str]]:
        parts = re.findall(r"[0-9]+|[^0-9]+", name)
        return [(False, int(p), p) if p[0] in "0123456789" else (True, 0, p) for p in parts]

    return sorted(names, key=key)


@no_garbage_collection()
def to_dataset_dicts(
    records: Records,
    class_names: Sequence[str],
    name: str,
    read_sizes: Callable[[Sequence[str]], list[Size]] = image_sizes,
    *,
    use_up: bool = False,
) -> list[dict]:
    """Make Detectron2's dataset dicts: number the classes, and clean boxes and image sizes.

    A class that is not in ``class_names`` is taken for the only one whose name differs in nothing
    but case, spaces, hyphens or underscores. A warning counts its boxes.

    Args:
        records: the content of the annotation files.
        class_names: the classes in order; the index of a class becomes its ``category_id``.
        name: the name of the data set in warnings.
        read_sizes: reads the sizes of image files.
        use_up: whether to empty ``records`` on the way. Millions of boxes then stand in memory
            once, and not twice.

    Raises:
        UserError: a class is not in ``class_names``, or `clean` refuses an image or a box.
    """
    numbers, flaws = ClassNumbers(class_names), Flaws()
    dicts = []
    for record in records.images:
        image = {**record}
        if "annotations" in record:
            image["annotations"] = [
                _numbered(annotation, numbers, record["source"], flaws)
                for annotation in record["annotations"]
            ]
            if use_up:
                record["annotations"].clear()
        dicts.append(image)
    if use_up:
        records.images.clear()
    cleaned = clean(dicts, flaws, read_sizes)
    flaws.log(name)
    return cleaned


def _numbered(
    annotation: dict[str, Any], numbers: ClassNumbers, source: str, flaws: Flaws
) -> dict[str, Any]:
    category = annotation["category"]
    number = numbers.find(category)
    if number is None:
        raise ArgumentError(
            "to_dataset_dicts",
            "{source}: class {category!r} is not one of the classes {classes}; correct the file, "
            "or list all classes in {class_names}",
            source=source,
            category=category,
            classes=numbers.class_names,
        )
    class_name = numbers.class_names[number]
    if category != class_name:
        flaws.add(f"boxes of {category!r} are taken for the class {class_name!r}", source)
    # A dict that once held a key more would need twice the memory.
    numbered = {key: value for key, value in annotation.items() if key != "category"}
    numbered["category_id"] = number
    return numbered
