"""Gives the classes of a checkpoint the order of the model that evaluates or resumes it."""

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from apdet.checkpoint.class_rows import find_class_weights
from apdet.checkpoint.classes import list_names, match_classes
from apdet.errors import ArgumentError
from apdet.modeling.class_layers import class_layers_of

logger = logging.getLogger(__name__)


def reorder_classes(
    weights: dict[str, Tensor],
    model: nn.Module,
    weights_classes: Sequence[str],
    model_classes: Sequence[str],
) -> dict[str, Tensor]:
    """Put the rows for each class in ``weights`` in the order of the model's classes, in place.

    Args:
        weights: {name: weight} of a checkpoint of this model.
        model: the model that is about to load the weights.
        weights_classes: the classes of the weights, in order.
        model_classes: the same classes in the order of the model.

    Returns:
        {name: (rows,) int64} for each weight whose rows have moved: the row in the checkpoint for
        each row of the model. Empty if the order is the same.

    Raises:
        ArgumentError: the order differs, and the layers of the model with rows for each class are
            not known or not in ``weights``.
    """
    matches = match_classes(weights_classes, model_classes)
    if all(ours == theirs for ours, theirs in matches.items()):
        return {}
    layers = class_layers_of(model)
    if layers is None:
        raise ArgumentError(
            "Checkpointer",
            "its classes have another order: {theirs} in the checkpoint, {ours} in the data sets. "
            "A {model} does not name its layers with rows for each class by an attribute "
            "class_layers, so set {classes} to the order of the checkpoint",
            theirs=list_names(weights_classes),
            ours=list_names(model_classes),
            model=type(model).__name__,
        )
    names = tuple(f"{layer.name}." for layer in layers)
    lacking = [k for k in model.state_dict() if k.startswith(names) and k not in weights]
    if lacking:
        raise ArgumentError(
            "Checkpointer",
            "it lacks {key}, whose rows are classes; give {weights} a checkpoint of this model",
            key=lacking[0],
        )
    num_classes = {"num_own_classes": len(matches), "num_other_classes": len(matches)}
    found = find_class_weights(model, weights, layers, **num_classes)
    orders = {w.key: w.order(matches) for w in found if w.own.shape == w.other.shape}
    for key, order in orders.items():
        weights[key] = weights[key][order]
    logger.info("The classes are mapped by name: the checkpoint has them in another order")
    return orders


def reorder_optimizer_state(
    optimizer: torch.optim.Optimizer, model: nn.Module, orders: Mapping[str, Tensor]
) -> None:
    """Move the rows of the optimizer's state like the rows of the weights, in place.

    Args:
        optimizer: it has loaded its state in the order of the checkpoint. All tensors with as many
            rows as the weight are changed, such as the momentum.
        model: the model that is optimized.
        orders: the result of :func:`reorder_classes`.
    """
    parameters = dict(model.named_parameters())
    for key in orders.keys() & parameters.keys():
        parameter = parameters[key]
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape[:1] == parameter.shape[:1]:
                value.copy_(value[orders[key].to(value.device)])
