"""PASCAL VOC as Detectron2 names it, read by our loader."""

import os
from functools import cache, partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.pascal_voc import CLASS_NAMES

from apdet.data.voc import load_voc, split_ids
from apdet.errors import UserError

# VOC 2012's test set has images alone: its annotations were never published.
VOC_SPLITS = {
    f"voc_{year}_{split}": (year, split)
    for year in (2007, 2012)
    for split in ("trainval", "train", "val", "test")
}


def register_voc() -> None:
    """Register VOC's sets in Detectron2's catalogs, in place of those it registered itself.

    They differ from Detectron2's in that difficult boxes are known as such, and that XML is parsed
    safely. The folders are looked for in ``DETECTRON2_DATASETS`` when a set is loaded.
    """
    for name, (year, split) in VOC_SPLITS.items():
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)
        # Each evaluation asks for the set again: its thousands of files are to be read once.
        DatasetCatalog.register(name, cache(partial(_load, year, split)))
        MetadataCatalog.get(name).set(
            thing_classes=list(CLASS_NAMES),
            year=year,
            split=split,
            evaluator_type="voc",
            annotated=name != "voc_2012_test",
        )


def datasets_root() -> Path:
    """The folder of VOC and COCO."""
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
