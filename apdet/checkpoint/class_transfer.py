"""Keeps the weights of shared classes when a model is fine-tuned on other classes."""

import logging
from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from apdet.checkpoint.classes import match_classes
from apdet.compat import renamed
from apdet.errors import ArgumentError
from apdet.modeling.cls_loss import ClsLoss
from apdet.modeling.contract import class_layer_of

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
    """Change the classification layer in ``weights`` to the classes of the model, in place.

    The rows of shared classes and of the background are kept, for each anchor. All other rows are
    copied from the model. The model names its layer in the attribute ``class_layer``, see
    :mod:`apdet.modeling.contract`. Without that attribute, nothing is changed.

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
        ArgumentError: the layer cannot be transferred, or a class matches several others.
    """
    layer = class_layer_of(model)
    if layer is None:
        _check_order(weights_classes, model_classes, type(model).__name__, declared=declared)
        return
    loss = cast(ClsLoss, model.cls_loss)
    own = _own_weights(model.state_dict(), weights, layer)
    num_anchors = {key: len(weight) // loss.num_logits for key, weight in own.items()}
    has_background = _has_background(weights, num_anchors, len(weights_classes))
    if has_background is None:
        if declared:
            raise _misfit(weights, num_anchors, len(weights_classes), layer)
        return
    matches = match_classes(weights_classes, model_classes)
    obstacle = _find_obstacle(weights_classes, model_classes, matches, has_background, loss.softmax)
    if obstacle:
        _check_may_start_anew(obstacle, allow_mismatch=allow_mismatch, declared=declared)
        for key in own:
            del weights[key]
        return
    background = {len(model_classes): len(weights_classes)} if has_background else {}
    for key, weight in own.items():
        weights[key] = _with_rows(weight, weights[key], matches | background, num_anchors[key])
    _log_transfer(model_classes, matches)


def _check_order(
    weights_classes: Sequence[str], model_classes: Sequence[str], model: str, *, declared: bool
) -> None:
    """Warn, or raise an error, if a model without ``class_layer`` may confuse classes."""
    if declared:
        raise ArgumentError(
            "Checkpointer",
            "{weights_classes} is set, but a {model} does not name its classification layer by an "
            "attribute class_layer: unset {weights_classes}",
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


def _own_weights(
    state: Mapping[str, Tensor], weights: Mapping[str, Tensor], layer: str
) -> dict[str, Tensor]:
    """Find the model's weights in the layer that fit ``weights`` except for the number of rows."""
    return {
        key: weight
        for key, weight in state.items()
        if key.startswith(f"{layer}.")
        and key in weights
        and weights[key].shape[1:] == weight.shape[1:]
    }


def _has_background(
    weights: Mapping[str, Tensor], num_anchors: Mapping[str, int], num_classes: int
) -> bool | None:
    """Whether an anchor has a logit for the background; None if the rows fit neither case."""
    num_logits = {len(weights[key]) / num for key, num in num_anchors.items()}
    if num_logits == {num_classes}:
        return False
    return True if num_logits == {num_classes + 1} else None


def _misfit(
    weights: Mapping[str, Tensor], num_anchors: Mapping[str, int], num_classes: int, layer: str
) -> ArgumentError:
    rows = [f"{key}: {len(weights[key])} for {num} anchors" for key, num in num_anchors.items()]
    return ArgumentError(
        "Checkpointer",
        "{weights_classes} has {num_classes} classes, which do not fit the rows of the weights "
        "({rows}): correct {weights_classes}, or unset it",
        num_classes=num_classes,
        rows=", ".join(rows) or f"no {layer}.* of this shape",
    )


def _find_obstacle(
    weights_classes: Sequence[str],
    model_classes: Sequence[str],
    matches: Mapping[int, int],
    has_background: bool,
    softmax: bool,
) -> str:
    """Say why the rows of the weights cannot be used in the model; empty if they can."""
    if not matches:
        return f"its classes are {list(weights_classes)}, those of the model {list(model_classes)}"
    if has_background == softmax:
        return ""
    kinds = {True: "with a background (softmax)", False: "without a background (sigmoid)"}
    return (
        f"its {len(weights_classes) + has_background} logits for {len(weights_classes)} classes "
        f"are {kinds[has_background]}, but the logits of the loss are {kinds[softmax]}"
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


def _with_rows(own: Tensor, weight: Tensor, rows: Mapping[int, int], num_anchors: int) -> Tensor:
    """Copy ``own``, and replace some rows by rows of ``weight``.

    Args:
        own: (A L, ...) weight of the model, with A anchors and L logits for each.
        weight: (A M, ...) weight of the checkpoint.
        rows: {logit of the model: logit of the checkpoint}, the same for each anchor.
        num_anchors: A.
    """
    merged = own.detach().cpu().clone().unflatten(0, (num_anchors, -1))
    weight = weight.unflatten(0, (num_anchors, -1)).to(merged)
    merged[:, list(rows)] = weight[:, list(rows.values())]
    return merged.flatten(0, 1)


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
