"""Registers data sets in Detectron2's catalogs."""

import difflib
import os
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from apdet.data.builtin import register_voc
from apdet.data.coco import read_coco
from apdet.data.records import Records, to_dataset_dicts
from apdet.data.voc import read_voc, split_ids
from apdet.errors import ArgumentError, UserError

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


def register(entries: Any, *, train: Sequence[str], test: Sequence[str]) -> list[str]:
    """Register data sets and PASCAL VOC, and check the data sets in use.

    All registered data sets share one list of classes: the ``classes`` of an entry, or else the
    classes in the annotations of the training sets. A second call replaces the data sets of the
    first call.

    Args:
        entries: a list of mappings with the key ``name`` and one of these sets of keys:
            ``format: voc``, ``root`` and ``split``; ``format: voc``, ``images`` and
            ``annotations``; ``format: coco``, ``json`` and ``images``. Each may also have
            ``classes``, a list of names. See datasets/README.md.
        train: names of the data sets to train on, from ``entries`` or known to Detectron2.
        test: names of the data sets to test on.

    Returns:
        The names of the classes, which all data sets in use share; empty if none is in use.

    Raises:
        UserError: an entry has wrong keys, annotations cannot be read, or a name is unknown.
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
            DatasetCatalog.get(name)  # raises its errors now, not at the evaluation
    _check_classes(used)
    return list(MetadataCatalog.get(used[0]).thing_classes) if used else []


def _checked(entries: Any) -> list[dict[str, Any]]:
    if not isinstance(entries, list | tuple):
        raise _error("{entries} is no list; give a list of {forms}")
    names: set[str] = set()
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise _error("{entries} has {entry!r}; an entry is one of {forms}", entry=entry)
        name, keys = entry["name"], set(entry) - {"name", "classes"}
        is_known = keys in _LAYOUTS and entry["format"] == ("coco" if "json" in keys else "voc")
        is_path = all(isinstance(entry[key], str) for key in keys - {"split"})
        if not (is_known and is_path) or not isinstance(entry.get("classes", []), list | tuple):
            raise _error(
                "{entries}: the entry {name!r} has {entry}; an entry is one of {forms}, each with "
                "or without classes: [...]",
                name=name,
                entry=entry,
            )
        classes = [str(c) for c in entry.get("classes", [])]
        if len(set(classes)) < len(classes):
            raise _error(
                "{entries}: the classes of {name!r} repeat one: {classes}; name each once",
                name=name,
                classes=classes,
            )
        if name in names or (name in DatasetCatalog and name not in _ours):
            raise _error("{entries}: the name {name!r} is taken; choose another", name=name)
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
                raise _error(
                    "{entries}: {first!r} has the classes {class_names}, but {name!r} has {other}; "
                    "a model has one list of classes, so give both the same",
                    first=first,
                    class_names=class_names,
                    name=name,
                    other=other,
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
        # With this map, the evaluator writes its results with the category ids of the file.
        metadata.thing_dataset_id_to_contiguous_id = {ids[c]: k for k, c in enumerate(class_names)}


def _check_name(name: str) -> None:
    if name not in DatasetCatalog:
        close = difflib.get_close_matches(name, DatasetCatalog.keys(), n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        raise _error(
            "{train} or {test} names {name!r}, which is no data set{hint} "
            "Register your own in {entries}, as {forms}",
            name=name,
            hint=hint,
        )
    json_file = MetadataCatalog.get(name).get("json_file")
    if json_file and not os.path.isfile(json_file):
        raise UserError(
            f"{json_file}: no such file; put the data set {name} there, or set DETECTRON2_DATASETS "
            "to the folder that holds it (datasets/README.md shows the layout)"
        )


def _check_classes(used: Sequence[str]) -> None:
    """Check that all data sets in use have the same classes, because a model has one list."""
    listed = {name: MetadataCatalog.get(name).get("thing_classes") for name in used}
    for name, class_names in listed.items():
        if not class_names:
            raise _error(
                "{train} or {test}: {name!r} has no class; annotate boxes, or list "
                "`classes: [...]` in its entry of {entries}",
                name=name,
            )
        if class_names != listed[used[0]]:
            raise _error(
                "{train} and {test}: {first!r} has the classes {expected}, but {name!r} has "
                "{class_names}; list the same `classes: [...]` in {entries}",
                first=used[0],
                expected=listed[used[0]],
                name=name,
                class_names=class_names,
            )


def _error(template: str, **values: object) -> ArgumentError:
    return ArgumentError("register", template, forms=_FORMS, **values)
