"""Checks the entries of `register`: what users write about their data sets."""

import re
import reprlib
from collections import Counter
from collections.abc import Container
from typing import Any

from apdet.errors import ArgumentError

_LAYOUTS = (
    {"format", "root", "split"},
    {"format", "images", "annotations"},
    {"format", "json", "images"},
)
# With `split: {fraction: 0.2, seed: 0}` an entry has the keys of one of these layouts.
_DIVIDED_LAYOUTS = (
    {"format", "root", "split"},
    {"format", "images", "annotations", "split"},
    {"format", "json", "images", "split"},
)
_OPTIONS = {"name", "classes", "annotated", "bits"}
FORMS = (
    "{name, format: voc, root, split}, {name, format: voc, images, annotations} or "
    "{name, format: coco, json, images}"
)
# A YAML file of few bytes can describe a value of many gigabytes.
_short = reprlib.Repr()
_short.maxdict = _short.maxlist = _short.maxtuple = 20
_short.maxstring = _short.maxother = 200
_short.maxlevel = 2


def check_entries(entries: Any, *, taken: Container[str]) -> list[dict[str, Any]]:
    """Check the keys and the types of all entries.

    Args:
        entries: the argument ``entries`` of `register`.
        taken: names of data sets that entries cannot have.

    Raises:
        UserError: an entry has wrong keys, wrong values or the name of another data set.
    """
    if not isinstance(entries, list | tuple):
        raise _error("{entries} is no list; give a list of {forms}")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise _error(
                "{entries} has {entry}; an entry is one of {forms}", entry=_short.repr(entry)
            )
        _check_keys(entry)
        _check_name(entry["name"])
        _check_classes(entry)
        _check_options(entry)
    count = Counter(name for entry in entries for name in data_set_names(entry))
    for name in count:
        if count[name] > 1 or name in taken:
            raise _error("{entries}: the name {name!r} is taken; choose another", name=name)
    return list(entries)


def data_set_names(entry: dict[str, Any]) -> list[str]:
    """The names of the data sets that an entry registers: one, or two if the entry is divided."""
    name = entry["name"]
    return [f"{name}_train", f"{name}_val"] if is_divided(entry) else [name]


def is_divided(entry: dict[str, Any]) -> bool:
    """Whether the entry divides its images into a training set and a validation set."""
    return isinstance(entry.get("split"), dict)


def _check_keys(entry: dict[str, Any]) -> None:
    keys = set(entry) - _OPTIONS
    known = keys in (_DIVIDED_LAYOUTS if is_divided(entry) else _LAYOUTS)
    known = known and entry["format"] == ("coco" if "json" in keys else "voc")
    paths = [entry[key] for key in keys - {"split"}]
    is_split = isinstance(entry.get("split", ""), str | int | dict)
    if not (known and is_split and all(isinstance(path, str) and path for path in paths)):
        raise _error(
            "{entries}: the entry {name!r} has {entry}; an entry is one of {forms}, each with or "
            "without classes: [...], annotated: false, bits: 12 and split: {division}",
            name=entry["name"],
            entry=_short.repr(entry),
            division="{fraction: 0.2, seed: 0}",
        )


def _check_name(name: str) -> None:
    # Predictions are written to a folder of this name.
    if (
        name != name.strip()
        or not re.fullmatch(r"[^/\\\x00-\x1f]{1,200}", name)
        or name in (".", "..")
    ):
        raise _error(
            "{entries}: the name {name!r} cannot be the name of a folder; leave out slashes, and "
            "spaces at its ends",
            name=name[:250],
        )


def _check_classes(entry: dict[str, Any]) -> None:
    classes, name = entry.get("classes", []), entry["name"]
    if not isinstance(classes, list | tuple):
        raise _error(
            "{entries}: the entry {name!r} has the classes {value}; an entry is one of {forms}, "
            "with a list of class names in `classes`",
            name=name,
            value=_short.repr(classes),
        )
    for value in classes:
        # In a YAML config all names are texts, see `apdet.config.yaml_file`.
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise _error(
                "{entries}: the classes of {name!r} have {value}; write names as texts",
                name=name,
                value=_short.repr(value),
            )
    class_names = [str(value) for value in classes]
    if len(set(class_names)) < len(class_names):
        raise _error(
            "{entries}: the classes of {name!r} repeat one: {classes}; name each once",
            name=name,
            classes=class_names,
        )


def _check_options(entry: dict[str, Any]) -> None:
    name, annotated, bits = entry["name"], entry.get("annotated", True), entry.get("bits", 16)
    if not isinstance(annotated, bool):
        raise _error(
            "{entries}: `annotated` of {name!r} is {value}; write true or false",
            name=name,
            value=_short.repr(annotated),
        )
    if type(bits) is not int or not 8 <= bits <= 16:
        raise _error(
            "{entries}: `bits` of {name!r} is {value}; write the number of bits that pixels of its "
            "16-bit images use, from 8 to 16",
            name=name,
            value=_short.repr(bits),
        )
    if is_divided(entry) and not _is_division(entry["split"]):
        raise _error(
            "{entries}: `split` of {name!r} is {value}; write {division}, where the fraction is "
            "between 0 and 1, and the seed is a whole number",
            name=name,
            value=_short.repr(entry["split"]),
            division="{fraction: 0.2, seed: 0}",
        )


def _is_division(split: dict[str, Any]) -> bool:
    fraction, seed = split.get("fraction"), split.get("seed", 0)
    is_fraction = isinstance(fraction, float | int) and 0 < fraction < 1
    return is_fraction and type(seed) is int and set(split) <= {"fraction", "seed"}


def _error(template: str, **values: object) -> ArgumentError:
    return ArgumentError("register", template, forms=FORMS, **values)
