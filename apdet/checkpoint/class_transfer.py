"""Keeps the weights of shared classes when a model is fine-tuned on other classes."""

import logging
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from apdet.checkpoint.class_rows import ClassWeight, find_class_weights
from apdet.checkpoint.classes import match_classes
from apdet.compat import renamed
from apdet.errors import ArgumentError
from apdet.modeling.class_layers import class_layers_of
from apdet.modeling.contract import ClassLayer

logger = logging.getLogger(__name__)
__getattr__ = renamed(
    __name__, take_over_classes="transfer_class_weights", same_classes="match_classes"
)


def transfer_class_weights(
    weights: dict[str, Tensor],
    model: nn.Module,
    weights_classes: Sequence[str],
    model_classes: Sequence[str],
    *,
    declared: bool,
    allow_mismatch: bool,
) -> None:
    """Change the layers in ``weights`` with rows for each class to the model's classes, in place.

    The rows of shared classes and of the background are kept, for each anchor. All other rows are
    copied from the model. If these layers are not known, see
    :func:`apdet.modeling.class_layers.class_layers_of`, nothing is changed.

    Args:
        weights: {name: weight} of a checkpoint.
        model: the model that is about to load the weights.
        weights_classes: the classes of the weights, in order.
        model_classes: the classes of the model, in order.
        declared: whether the user has declared ``weights_classes``. If so, they must fit. If not,
            they come from the checkpoint, and a layer with another number of rows is not changed;
            loading then reports its shape.
        allow_mismatch: whether the model keeps its own layer, with a warning, if no class is shared
            or only one of the two has a background. If ``declared``, this is always an error.

    Raises:
        ArgumentError: a layer cannot be transferred, or a class matches several others.
    """
    layers = class_layers_of(model)
    if layers is None:
        _check_order(weights_classes, model_classes, type(model).__name__, declared=declared)
        return
    found = find_class_weights(
        model,
        weights,
        layers,
        num_own_classes=len(model_classes),
        num_other_classes=len(weights_classes),
    )
    misfits = [weight for weight in found if not weight.fits]
    if declared and (misfits or not found):
        raise _misfit(misfits, len(weights_classes), layers)
    matches = match_classes(weights_classes, model_classes)
    # The model cannot load a weight of another shape, and says so.
    found = [w for w in found if w.fits or w.other.shape == w.own.shape]
    obstacles = [_find_obstacle(w, weights_classes, model_classes, matches) for w in found]
    for obstacle in dict.fromkeys(filter(None, obstacles)):
        _check_may_start_anew(obstacle, allow_mismatch=allow_mismatch, declared=declared)
    for weight, obstacle in zip(found, obstacles, strict=True):
        if obstacle:
            del weights[weight.key]
        else:
            weights[weight.key] = weight.with_rows(matches)
    if not all(obstacles):
        _log_transfer(model_classes, matches)


def _check_order(
    weights_classes: Sequence[str], model_classes: Sequence[str], model: str, *, declared: bool
) -> None:
    """Warn, or raise an error, if the layers of a model with rows for each class are not known."""
    if declared:
        raise ArgumentError(
            "Checkpointer",
            "{weights_classes} is set, but a {model} does not name its layers with rows for each "
            "class by an attribute class_layers: unset {weights_classes}",
            model=model,
        )
    if list(weights_classes) != list(model_classes):
        logger.warning(
            "The weights were trained on the classes %s, and this training is on %s. A %s tells "
            "classes apart by their order, not by their names",
            list(weights_classes),
            list(model_classes),
            model,
        )


def _misfit(
    misfits: Sequence[ClassWeight], num_classes: int, layers: Sequence[ClassLayer]
) -> ArgumentError:
    rows = [f"{w.key}: {len(w.other)} for {w.num_anchors} anchors" for w in misfits]
    return ArgumentError(
        "Checkpointer",
        "{weights_classes} has {num_classes} classes, which do not fit the rows of the weights "
        "({rows}): correct {weights_classes}, or unset it",
        num_classes=num_classes,
        rows=", ".join(rows) or f"no {' or '.join(f'{la.name}.*' for la in layers)} of this shape",
    )


def _find_obstacle(
    weight: ClassWeight,
    weights_classes: Sequence[str],
    model_classes: Sequence[str],
    matches: Mapping[int, int],
) -> str:
    """Say why the rows of a weight cannot be used in the model; empty if they can."""
    if not weight.fits:
        return f"{len(weight.other)} rows of {weight.key} do not fit {len(weights_classes)} classes"
    if not matches:
        return f"its classes are {list(weights_classes)}, those of the model {list(model_classes)}"
    if weight.other_has_background == weight.layer.has_background:
        return ""
    num_logits = len(weights_classes) + weight.other_has_background
    kinds = {True: "with a background (softmax)", False: "without a background (sigmoid)"}
    return (
        f"its {num_logits} logits for {len(weights_classes)} classes are "
        f"{kinds[weight.other_has_background]}, but the logits of the loss are "
        f"{kinds[weight.layer.has_background]}"
    )


def _check_may_start_anew(obstacle: str, *, allow_mismatch: bool, declared: bool) -> None:
    if allow_mismatch and not declared:
        logger.warning("The classification layer starts anew: %s", obstacle)
        return
    remedy = (
        "Correct {weights_classes}, or unset it"
        if declared
        else "To start it anew, set {allow_mismatch} to True. If the classes are the same by other "
        "names, list the classes of the weights by the new names in {weights_classes}"
    )
    raise ArgumentError(
        "Checkpointer",
        "the classification layer of the weights cannot be used: {obstacle}. " + remedy,
        obstacle=obstacle,
    )


def _log_transfer(model_classes: Sequence[str], matches: Mapping[int, int]) -> None:
    kept = [name for index, name in enumerate(model_classes) if index in matches]
    new = [name for index, name in enumerate(model_classes) if index not in matches]
    logger.info(
        "The classification layer takes over %d of %d classes: %s%s",
        len(kept),
        len(model_classes),
        ", ".join(kept),
        f"; it learns anew: {', '.join(new)}" if new else "",
    )
