"""Registers data sets in Detectron2's catalogs."""

import difflib
import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from apdet.data.builtin import declare_unannotated, register_voc
from apdet.data.entries import FORMS, check_entries, data_set_names
from apdet.data.entry_reader import Reader, entry_readers
from apdet.data.garbage import no_garbage_collection
from apdet.data.image_sizes import Size, image_sizes, image_sizes_of_machine
from apdet.data.records import to_dataset_dicts
from apdet.data.registered import check_classes, log_overlaps, warn_of_similar_classes
from apdet.errors import ArgumentError, UserError

_ours: set[str] = set()


@no_garbage_collection()
def register(
    entries: Any, *, train: Sequence[str], test: Sequence[str], val: Sequence[str] = ()
) -> list[str]:
    """Register data sets and PASCAL VOC, and check the data sets in use.

    All registered data sets share one list of classes: the ``classes`` of an entry, or else the
    classes in the annotations of the training sets. A second call replaces the data sets of the
    first call.

    Args:
        entries: a list of mappings with the key ``name`` and one of these sets of keys:
            ``format: voc``, ``root`` and ``split``; ``format: voc``, ``images`` and
            ``annotations``; ``format: coco``, ``json`` and ``images``. Each may also have
            ``classes``, a list of names; ``annotated: false`` if it has no ground truth; ``bits``,
            see `read_image`; and ``split: {fraction: 0.2, seed: 0}``, which registers the data sets
            ``<name>_train`` and ``<name>_val``, see `divide`. See datasets/README.md.
        train: names of the data sets to train on, from ``entries`` or known to Detectron2.
        test: names of the data sets to test on.
        val: names of the data sets to validate on.

    Returns:
        The names of the classes, which all data sets in use share; empty if none is in use.

    Raises:
        UserError: an entry has wrong keys, annotations cannot be read, or a name is unknown.
    """
    register_voc()
    declare_unannotated()
    lists = {"train": train, "val": val, "test": test}
    for argument, names in lists.items():
        _check_list(argument, names)
    entries = check_entries(entries, taken=set(DatasetCatalog) - _ours)
    readers: dict[str, Reader] = {}
    for entry in entries:
        readers.update(entry_readers(entry))
    class_names = _class_names(entries, readers, list(train))
    for entry in entries:
        for name in data_set_names(entry):
            is_used = any(name in names for names in lists.values())
            _register(name, entry, readers[name], class_names, is_used=is_used)
    for argument, names in lists.items():
        for name in names:
            _check_name(argument, name)
            if name in readers:
                DatasetCatalog.get(name)  # raises its errors now, not at the evaluation
    used = [*train, *val, *test]
    check_classes(used)
    trained = [name for name in train if name in readers]
    if trained and not any("classes" in entry for entry in entries):
        warn_of_similar_classes(class_names, trained)
    log_overlaps(lists, readers)
    return list(MetadataCatalog.get(used[0]).thing_classes) if used else []


def _check_list(argument: str, names: Any) -> None:
    is_list = isinstance(names, list | tuple)
    if not is_list or not all(isinstance(name, str) for name in names):
        raise _error(
            f"{{{argument}}} is {{names!r}}; give a list of names of data sets", names=names
        )


def training_classes(dataset_names: Sequence[str]) -> list[str]:
    """The classes of the first of some registered data sets; empty if they are not known."""
    if not dataset_names:
        return []
    return list(MetadataCatalog.get(dataset_names[0]).get("thing_classes", []))


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


def _register(
    name: str, entry: dict[str, Any], read: Reader, class_names: Sequence[str], *, is_used: bool
) -> None:
    if name in _ours:
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)
    _ours.add(name)
    # Data sets in use are loaded below, by all processes. Others may be loaded by one, later.
    read_sizes = image_sizes_of_machine if is_used else image_sizes
    load = cache(partial(_dicts, name, read, class_names, entry, read_sizes))
    DatasetCatalog.register(name, load)
    records = read()
    metadata = MetadataCatalog.get(name)
    metadata.set(
        thing_classes=list(class_names),
        evaluator_type=entry["format"],
        annotated=records.annotated,
        declared_unannotated=not entry.get("annotated", True),
    )
    if records.skeleton:
        names, pairs, lines = records.skeleton
        metadata.set(keypoint_names=names, keypoint_flip_map=pairs, keypoint_connection_rules=lines)
    ids = {c: i for i, c in (records.category_ids or {}).items()}
    if set(class_names) <= set(ids):
        # With this map, the evaluator writes its results with the category ids of the file.
        metadata.thing_dataset_id_to_contiguous_id = {ids[c]: k for k, c in enumerate(class_names)}


def _dicts(
    name: str,
    read: Reader,
    class_names: Sequence[str],
    entry: dict[str, Any],
    read_sizes: Callable[[Sequence[str]], list[Size]],
) -> list[dict[str, Any]]:
    records = read()
    dicts = to_dataset_dicts(records, class_names, name, read_sizes, use_up=True)
    return [{**image, "bits": entry["bits"]} for image in dicts] if "bits" in entry else dicts


def _check_name(argument: str, name: str) -> None:
    if name not in DatasetCatalog:
        close = difflib.get_close_matches(name, DatasetCatalog.keys(), n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        raise _error(
            f"{{{argument}}} names {{name!r}}, which is no data set{{hint}} "
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


def _error(template: str, **values: object) -> ArgumentError:
    return ArgumentError("register", template, forms=FORMS, **values)
