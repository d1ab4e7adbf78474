"""What the readers of annotation files hand on: dataset dicts whose classes are still names."""

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from apdet.data.clean import clean
from apdet.errors import UserError

logger = logging.getLogger(__name__)


class Records(NamedTuple):
    """A data set as its annotation files tell it, before classes are numbered and boxes checked."""

    # As Detectron2's dicts, but for "source", the annotation file of the image, and "category",
    # the name of the class, in place of "category_id". Without "annotations" if unannotated.
    images: list[dict[str, Any]]
    class_names: list[str]  # those of the files, in the files' order or sorted
    category_ids: dict[int, str] | None  # of a COCO file

    @property
    def annotated(self) -> bool:
        return any("annotations" in image for image in self.images)


def natural_sorted(names: Iterable[str]) -> list[str]:
    """Sorted with numbers by their value: "2" stands before "10"."""

    def key(name: str) -> list[tuple[bool, int, str]]:
        parts = re.findall(r"[0-9]+|[^0-9]+", name)
        return [(False, int(p), p) if p[0] in "0123456789" else (True, 0, p) for p in parts]

    return sorted(names, key=key)


def to_dataset_dicts(records: Records, class_names: Sequence[str], name: str) -> list[dict]:
    """Detectron2's dataset dicts: classes numbered by ``class_names``, boxes and sizes cleaned.

    Args:
        records: left as they are.
        class_names: position is ``category_id``.
        name: what warnings call the data set.

    Raises:
        UserError: a class that is not in ``class_names``, or what `clean` refuses.
    """
    index = {class_name: i for i, class_name in enumerate(class_names)}
    dicts = []
    for record in records.images:
        image = {**record}
        if "annotations" in record:
            image["annotations"] = [
                _numbered(annotation, index, record["source"])
                for annotation in record["annotations"]
            ]
        dicts.append(image)
    return clean(dicts, name)


def _numbered(annotation: dict[str, Any], index: dict[str, int], source: str) -> dict[str, Any]:
    numbered = {**annotation}
    category = numbered.pop("category")
    if category not in index:
        raise UserError(
            f"{source}: class {category!r} is not one of the classes {list(index)}; correct the "
            "file, or list all classes as `classes: [...]` in an entry of DATASETS.REGISTER"
        )
    return {**numbered, "category_id": index[category]}
