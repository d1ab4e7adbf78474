"""Makes the data sets of a config known to Detectron2's catalogs."""

import difflib
import logging
import os
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from apdet.data.builtin import register_voc
from apdet.data.coco import read_coco
from apdet.data.records import Records, to_dataset_dicts
from apdet.data.voc import read_voc, split_ids
from apdet.errors import UserError

logger = logging.getLogger(__name__)

_LAYOUTS = (
    {"format", "root", "split"},
    {"format", "images", "annotations"},
    {"format", "json", "images"},
)
_FORMS = (
    "{name, format: voc, root, split}, {name, format: voc, images, annotations} or "
    "{name, format: coco, json, images}"
)
_ours: set[str] = set()


def register_datasets(cfg: CfgNode) -> None:
    """Register ``DATASETS.REGISTER`` and VOC; check the names in use; set the number of classes.

    Args:
        cfg: ``NUM_CLASSES`` of RetinaNet and of RoI heads are set to the data set's.

    Raises:
        UserError: as :func:`register`.
    """
    node = cfg.DATASETS
    register(node.REGISTER, train=node.TRAIN, test=node.TEST)
    for name in [*node.TRAIN, *node.TEST][:1]:
        _set_num_classes(cfg, name)


def register(entries: Any, *, train: Sequence[str], test: Sequence[str]) -> list[str]:
    """Register data sets, and VOC; check the names in use.

    All registered sets share one list of classes: ``classes`` of an entry if there is one, else
    what the annotations of the training sets hold. Calling it again replaces what it registered.

    Args:
        entries: a list of mappings as in ``DATASETS.REGISTER``.
        train: names of the sets to train on, of ``entries`` or known to Detectron2.
        test: likewise of those to test on.

    Returns:
        The classes that all sets in use have.

    Raises:
        UserError: an entry with wrong keys, annotations that cannot be read, an unknown name.
    """
    register_voc()
    entries = _checked(entries)
    readers = {entry["name"]: cache(partial(_read, entry)) for entry in entries}
    class_names = _class_names(entries, readers, list(train))
    for entry in entries:
        _register(entry, readers[entry["name"]], class_names)
    used = [*train, *test]
    for name in used:
        _check_name(name)
        if name in readers:
            DatasetCatalog.get(name)  # what is wrong with it should not wait for the evaluation
    _check_classes(used)
    return list(MetadataCatalog.get(used[0]).thing_classes) if used else []


def _checked(entries: Any) -> list[dict[str, Any]]:
    if not isinstance(entries, list | tuple):
        raise UserError(f"DATASETS.REGISTER is no list; give a list of {_FORMS}")
    names: set[str] = set()
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise UserError(f"DATASETS.REGISTER has {entry!r}; an entry is one of {_FORMS}")
        name, keys = entry["name"], set(entry) - {"name", "classes"}
        is_known = keys in _LAYOUTS and entry["format"] == ("coco" if "json" in keys else "voc")
        is_path = all(isinstance(entry[key], str) for key in keys - {"split"})
        if not (is_known and is_path) or not isinstance(entry.get("classes", []), list | tuple):
            raise UserError(
                f"DATASETS.REGISTER: the entry {name!r} has {entry}; an entry is one of {_FORMS}, "
                "each with or without classes: [...]"
            )
        classes = [str(c) for c in entry.get("classes", [])]
        if len(set(classes)) < len(classes):
            raise UserError(
                f"DATASETS.REGISTER: the classes of {name!r} repeat one: {classes}; name each once"
            )
        if name in names or (name in DatasetCatalog and name not in _ours):
            raise UserError(f"DATASETS.REGISTER: the name {name!r} is taken; choose another")
        names.add(name)
    return list(entries)


def _read(entry: dict[str, Any]) -> Records:
    if entry["format"] == "coco":
        return read_coco(entry["json"], entry["images"])
    if "split" not in entry:
        return read_voc(entry["images"], entry["annotations"])
    root = entry["root"]
    if not os.path.isdir(root):
        raise UserError(f"{root}: no such folder; correct `root` of {entry['name']!r}")
    ids = split_ids(root, entry["split"])
    return read_voc(os.path.join(root, "JPEGImages"), os.path.join(root, "Annotations"), ids=ids)


def _class_names(entries: list[dict], readers: dict, train: list[str]) -> list[str]:
    given = {e["name"]: [str(c) for c in e["classes"]] for e in entries if "classes" in e}
    if given:
        first, class_names = next(iter(given.items()))
        for name, other in given.items():
            if other != class_names:
                raise UserError(
                    f"DATASETS.REGISTER: {first!r} has the classes {class_names}, but {name!r} has "
                    f"{other}; a model has one list of classes, so give both the same"
                )
        return class_names
    sources = [name for name in readers if name in train] or list(readers)
    return list(dict.fromkeys(c for name in sources for c in readers[name]().class_names))


def _register(entry: dict[str, Any], reader: Any, class_names: Sequence[str]) -> None:
    name = entry["name"]
    if name in _ours:
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)
    _ours.add(name)
    DatasetCatalog.register(name, cache(lambda: to_dataset_dicts(reader(), class_names, name)))
    records = reader()
    metadata = MetadataCatalog.get(name)
    metadata.set(
        thing_classes=list(class_names),
        evaluator_type=entry["format"],
        annotated=records.annotated,
    )
    ids = {c: i for i, c in (records.category_ids or {}).items()}
    if set(class_names) <= set(ids):
        # The evaluator writes its results with the ids of the file.
        metadata.thing_dataset_id_to_contiguous_id = {ids[c]: k for k, c in enumerate(class_names)}


def _check_name(name: str) -> None:
    if name not in DatasetCatalog:
        close = difflib.get_close_matches(name, DatasetCatalog.keys(), n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        raise UserError(
            f"DATASETS.TRAIN or TEST names {name!r}, which is no data set{hint} "
            f"Register your own under DATASETS.REGISTER, as {_FORMS}"
        )
    json_file = MetadataCatalog.get(name).get("json_file")
    if json_file and not os.path.isfile(json_file):
        raise UserError(
            f"{json_file}: no such file; put the data set {name} there, or set DETECTRON2_DATASETS "
            "to the folder that holds it (datasets/README.md shows the layout)"
        )


def _check_classes(used: Sequence[str]) -> None:
    """A model has one list of classes: so must all the data sets that it meets."""
    listed = {name: MetadataCatalog.get(name).get("thing_classes") for name in used}
    for name, class_names in listed.items():
        if not class_names:
            raise UserError(
                f"DATASETS.TRAIN or TEST: {name!r} has no class; annotate boxes, or list "
                "`classes: [...]` in its entry of DATASETS.REGISTER"
            )
        if class_names != listed[used[0]]:
            raise UserError(
                f"DATASETS.TRAIN and TEST: {used[0]!r} has the classes {listed[used[0]]}, but "
                f"{name!r} has {class_names}; list the same `classes: [...]` in DATASETS.REGISTER"
            )


def _set_num_classes(cfg: CfgNode, name: str) -> None:
    num_classes = len(MetadataCatalog.get(name).thing_classes)
    frozen = cfg.is_frozen()
    cfg.defrost()
    for head in (cfg.MODEL.RETINANET, cfg.MODEL.ROI_HEADS):
        head.NUM_CLASSES = num_classes
    if frozen:
        cfg.freeze()
    logger.info(f"{name} has {num_classes} classes, and so has the model")
