"""Checks registered data sets together: their classes, and images that they share."""

import logging
from collections import Counter
from collections.abc import Container, Mapping, Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

from apdet.data.class_names import warn_of_similar_names
from apdet.errors import ArgumentError

logger = logging.getLogger(__name__)


def check_classes(used: Sequence[str]) -> None:
    """Check that all data sets in use have the same classes, because a model has one list.

    Raises:
        ArgumentError: they have not, or one has no class.
    """
    listed = {name: MetadataCatalog.get(name).get("thing_classes") for name in used}
    for name, class_names in listed.items():
        if not class_names:
            raise ArgumentError(
                "register",
                "{train} or {test}: {name!r} has no class; annotate boxes, or list "
                "`classes: [...]` in its entry of {entries}",
                name=name,
            )
        if class_names != listed[used[0]]:
            raise ArgumentError(
                "register",
                "{train} and {test}: {first!r} has the classes {expected}, but {name!r} has "
                "{class_names}; list the same `classes: [...]` in {entries}",
                first=used[0],
                expected=listed[used[0]],
                name=name,
                class_names=class_names,
            )


def warn_of_similar_classes(class_names: Sequence[str], train: Sequence[str]) -> None:
    """Warn of classes whose names are almost the same, with their boxes in the training sets."""
    count = Counter(
        class_names[box["category_id"]]
        for name in train
        for image in DatasetCatalog.get(name)
        for box in image.get("annotations", [])
    )
    warn_of_similar_names({name: count[name] for name in class_names}, ", ".join(train))


def log_overlaps(lists: Mapping[str, Sequence[str]], ours: Container[str]) -> None:
    """Log data sets that are named twice, and tests on images that are trained on.

    Args:
        lists: the names of the data sets of "train", "val" and "test".
        ours: the names of those that come from ``DATASETS.REGISTER``. The images of others are not
            compared, because reading them can take long.
    """
    for argument, names in lists.items():
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            logger.warning(f"{', '.join(repeated)}: named more than once in the list {argument}")
    train = lists["train"]
    trained = {
        image["file_name"] for name in train if name in ours for image in DatasetCatalog.get(name)
    }
    for name in dict.fromkeys([*lists["val"], *lists["test"]]):
        files = [image["file_name"] for image in DatasetCatalog.get(name)] if name in ours else []
        shared = sum(file in trained for file in files)
        if shared or name in train:
            logger.warning(
                f"{name}: {shared or 'all'} of its images are also trained on, so its results do "
                "not tell how the detector does on new images"
            )
