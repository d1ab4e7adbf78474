"""Finds the classes that weights were trained on, and matches them to the classes of a model."""

import difflib
from collections.abc import Sequence
from typing import cast

from detectron2.data import DatasetCatalog, MetadataCatalog

from apdet.data.class_names import normalise
from apdet.errors import ArgumentError

# Class names of PASCAL VOC that have another name in COCO, without spaces.
SYNONYMS = {"aeroplane": "airplane", "motorbike": "motorcycle", "sofa": "couch", "tvmonitor": "tv"}


def resolve_weights_classes(value: str | Sequence[str] | None) -> list[str]:
    """List the classes that weights were trained on.

    Args:
        value: the name of a registered data set, or the class names in the order of the weights.
            None or empty: the classes are not known, and the result is empty.

    Raises:
        ArgumentError: no data set with classes has the name, ``value`` is not a list, or a class is
            repeated.
    """
    if not value:
        return []
    if isinstance(value, str):
        return _dataset_classes(value)
    if not isinstance(value, Sequence):
        raise ArgumentError(
            "Checkpointer",
            "{weights_classes} is {value!r}; give the name of a data set, or a list of classes",
            value=value,
        )
    names = [str(name) for name in value]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ArgumentError(
            "Checkpointer",
            "{weights_classes} repeats {repeated}; name each class once",
            repeated=repeated,
        )
    return names


def _dataset_classes(name: str) -> list[str]:
    classes = MetadataCatalog.get(name).get("thing_classes") if name in DatasetCatalog else None
    if not classes:
        close = difflib.get_close_matches(name, DatasetCatalog.keys(), n=3)
        raise ArgumentError(
            "Checkpointer",
            "{weights_classes} is {name!r}, which is no data set with classes{hint} "
            "Or list the classes, in the order of the weights: ['cat', 'dog']",
            name=name,
            hint=f"; did you mean {' or '.join(close)}?" if close else ".",
        )
    return list(classes)


def read_classes(value: object) -> list[str]:
    """The names of classes in a checkpoint; empty if ``value`` is anything else."""
    is_names = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    return list(cast(Sequence[str], value)) if is_names else []


def are_same_classes(weights_classes: Sequence[str], model_classes: Sequence[str]) -> bool:
    """Whether each class matches one class of the other list, in any order; see `match_classes`."""
    try:
        matches = match_classes(weights_classes, model_classes)
    except ArgumentError:  # a class matches several others
        return False
    all_match = len(matches) == len(weights_classes) == len(model_classes)
    return all_match and len(set(matches.values())) == len(matches)


def match_classes(weights_classes: Sequence[str], model_classes: Sequence[str]) -> dict[int, int]:
    """Find the classes of the model among the classes of the weights.

    Names match if they are equal. If no name is equal, names match that differ only in case,
    spaces, hyphens or underscores, or that are synonyms in PASCAL VOC and COCO.

    Returns:
        {index in ``model_classes``: index in ``weights_classes``} for each shared class.

    Raises:
        ArgumentError: a class of the model matches several classes of the weights.
    """
    normal_names = [_normalise(name) for name in weights_classes]
    matches = {}
    for index, name in enumerate(model_classes):
        found = [i for i, other in enumerate(weights_classes) if other == name]
        found = found or [i for i, other in enumerate(normal_names) if other == _normalise(name)]
        if len(found) > 1:
            raise ArgumentError(
                "Checkpointer",
                "the class {name!r} may be any of {candidates}, which the weights were trained "
                "on; list the classes of the weights by other names in {weights_classes}",
                name=name,
                candidates=[weights_classes[i] for i in found],
            )
        if found:
            matches[index] = found[0]
    return matches


def _normalise(name: str) -> str:
    return SYNONYMS.get(normalise(name), normalise(name))


def list_names(names: Sequence[str], limit: int = 12) -> str:
    """List names for a message, the first ones of a long list."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{len(names)} {list(names[:limit])}{more}"
