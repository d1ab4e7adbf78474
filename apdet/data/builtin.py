"""Registers PASCAL VOC under Detectron2's names, with apdet's own loader."""

import os
from functools import cache, partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.pascal_voc import CLASS_NAMES

from apdet.data.voc import load_voc, split_ids
from apdet.errors import UserError

# VOC 2012's test set has images only: its annotations were never published.
VOC_SPLITS = {
    f"voc_{year}_{split}": (year, split)
    for year in (2007, 2012)
    for split in ("trainval", "train", "val", "test")
}


def register_voc() -> None:
    """Register VOC's data sets in Detectron2's catalogs, in place of Detectron2's own ones.

    Our loader marks difficult boxes and parses XML safely. It reads a data set from
    :func:`datasets_root` when the data set is first used.
    """
    for name, (year, split) in VOC_SPLITS.items():
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)
        # Cached, because every evaluation asks for the data set, which has thousands of files.
        DatasetCatalog.register(name, cache(partial(_load, year, split)))
        MetadataCatalog.get(name).set(
            thing_classes=list(CLASS_NAMES),
            year=year,
            split=split,
            evaluator_type="voc",
            annotated=name != "voc_2012_test",
            declared_unannotated=name == "voc_2012_test",
        )


def declare_unannotated() -> None:
    """Declare COCO's and LVIS's test sets to have no ground truth, in Detectron2's catalog."""
    for name in DatasetCatalog:
        json_file = MetadataCatalog.get(name).get("json_file") or ""
        if "image_info" in os.path.basename(json_file):  # so they name files without annotations
            MetadataCatalog.get(name).declared_unannotated = True


def datasets_root() -> Path:
    """The folder of the public data sets: VOC, COCO and digits.

    It is ``$DETECTRON2_DATASETS``; by default it is ``datasets`` in the working folder. The data
    paths in shipped configs start from it.
    """
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


def _load(year: int, split: str) -> list[dict]:
    root = datasets_root() / f"VOC{year}"
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder; put VOC {year} there, or set DETECTRON2_DATASETS to the "
            "folder that holds it (datasets/README.md shows the layout)"
        )
    return load_voc(
        root / "JPEGImages",
        root / "Annotations",
        ids=split_ids(root, split),
        class_names=CLASS_NAMES,
    )
