"""Fits the classes of a checkpoint to the classes of the model that loads it, by name."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from apdet.checkpoint.class_order import reorder_classes
from apdet.checkpoint.class_transfer import transfer_class_weights
from apdet.checkpoint.classes import are_same_classes, list_names, read_classes
from apdet.errors import ArgumentError
from apdet.modeling.class_layers import class_layers_of

logger = logging.getLogger(__name__)

_RESUMING = (
    "To train on other classes, start a new training from the checkpoint: give it in {weights} "
    "without --resume, with another {save_dir}"
)
_EVALUATING = (
    "Evaluate it on data with its classes. If they are the same by other names, list the new "
    "names, in the order of the checkpoint, in {weights_classes}"
)


@dataclass(frozen=True)
class Classes:
    """The classes of a model and of the weights that it loads.

    Attributes:
        model: the classes of the model, in order; empty if they are not known.
        declared: the classes of the weights, in order, if the user gave them; else empty. When a
            training starts from the weights, they go before the classes in the checkpoint.
    """

    model: Sequence[str] = ()
    declared: Sequence[str] = ()


def fit_classes(
    checkpoint: Mapping[str, Any],
    model: nn.Module,
    classes: Classes,
    *,
    strict: bool,
    resuming: bool,
    allow_mismatch: bool,
) -> dict[str, Tensor]:
    """Fit the rows of classes in a checkpoint to the classes of the model, in place.

    Args:
        checkpoint: "model" has {name: weight}, and "classes", if present, their classes. Another
            program may have saved anything by that name.
        model: the model that is about to load the weights.
        classes: the classes of both.
        strict: whether the classes must be the same, in any order, to evaluate or resume. If not, a
            training starts from the weights, and keeps the rows of shared classes.
        resuming: whether the checkpoint is one of this training, which ``classes.declared`` do not
            describe.
        allow_mismatch: see :func:`transfer_class_weights`.

    Returns:
        The rows that have moved, see :func:`reorder_classes`; empty unless ``strict``.

    Raises:
        ArgumentError: the classes of the checkpoint do not fit.
    """
    if strict:
        declared = () if resuming else classes.declared
        names = _same_classes(checkpoint.get("classes"), declared, classes.model, resuming=resuming)
        if names:
            return reorder_classes(checkpoint["model"], model, names, classes.model)
        _log_given_order(classes.model)
        return {}
    weights, saved = checkpoint["model"], read_classes(checkpoint.get("classes"))
    if classes.declared or saved:
        transfer_class_weights(
            weights,
            model,
            classes.declared or saved,
            classes.model,
            declared=bool(classes.declared),
            allow_mismatch=allow_mismatch,
        )
    elif _has_class_rows(weights, model):
        _log_given_order(classes.model)
    return {}


def _same_classes(
    saved: object, declared: Sequence[str], classes: Sequence[str], *, resuming: bool
) -> Sequence[str]:
    """The classes of a checkpoint in its order; empty if they are not known.

    Args:
        saved: the classes in the checkpoint, or None.
        declared: used if the checkpoint has no classes, or has other names than the model.
        classes: the classes of the model. The result must be the same, in any order.
        resuming: decides which remedy an error names.
    """
    names = read_classes(saved)
    if saved is not None and not names:
        raise ArgumentError(
            "Checkpointer", "its 'classes' are {saved}, not a list of names", saved=repr(saved)[:80]
        )
    for candidate in (names, declared):
        if candidate and are_same_classes(candidate, classes):
            return candidate
    if not names:
        return []
    raise ArgumentError(
        "Checkpointer",
        "it was trained on other classes: {theirs} in the checkpoint, {ours} in the data sets. "
        + (_RESUMING if resuming else _EVALUATING),
        theirs=list_names(names),
        ours=list_names(classes),
    )


def _has_class_rows(weights: Mapping[str, Tensor], model: nn.Module) -> bool:
    layers = [f"{layer.name}." for layer in class_layers_of(model) or ()]
    return any(key.startswith(tuple(layers)) for key in weights)


def _log_given_order(classes: Sequence[str]) -> None:
    logger.info(
        "The weights do not say their classes. They are taken in the order of the data sets: %s",
        list_names(classes),
    )
