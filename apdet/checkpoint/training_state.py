"""Loads the state of a training, such as its iteration and its optimizer, after checks."""

import copy
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from apdet.checkpoint.class_order import reorder_optimizer_state
from apdet.checkpoint.finite import find_not_finite
from apdet.errors import ArgumentError

logger = logging.getLogger(__name__)

# The warning about a checkpoint without the state of an object. Its arguments: file and object.
NO_STATE = (
    "%s has no state of the %s: its weights are loaded, but iteration, optimizer and learning rate "
    "start anew"
)


def load_training_state(
    target: Any, state: object, *, name: str, model: nn.Module, orders: Mapping[str, Tensor]
) -> None:
    """Load the state of a trainer, an optimizer or another object with ``load_state_dict``.

    Args:
        target: the object. If it is an optimizer or has an attribute ``optimizer``, the optimizer
            is checked, too.
        state: what ``target.state_dict()`` returned when the checkpoint was written.
        name: the name of the object, for errors.
        model: the model that is trained. It has loaded its weights.
        orders: the rows of its weights that have moved, see :func:`reorder_classes`.

    Raises:
        ArgumentError: the state is damaged, incomplete, or of another kind of training.
    """
    is_optimizer = isinstance(target, torch.optim.Optimizer)
    optimizer = target if is_optimizer else getattr(target, "optimizer", None)
    try:
        _load(target, state, optimizer)
    except Exception as error:  # a state of another form may raise any exception
        raise ArgumentError(
            "Checkpointer",
            "the state of its {name} cannot be loaded: {reason}. Resume with the config that wrote "
            "it, or start a new training from its weights: give it in {weights} without --resume, "
            "with another {save_dir}",
            name=name,
            reason=_describe(error),
        ) from error
    if optimizer is not None:
        if not optimizer.state and any(map(_has_memory, optimizer.param_groups)):
            logger.warning(f"The {name} of the checkpoint has no momentum, which starts from zero")
        reorder_optimizer_state(optimizer, model, orders)


def _has_memory(group: Mapping[str, Any]) -> bool:
    """Whether an optimizer with these settings averages its gradients over the steps."""
    return bool(group.get("momentum")) or "betas" in group


def _load(target: Any, state: object, optimizer: torch.optim.Optimizer | None) -> None:
    if not isinstance(state, Mapping):
        raise ValueError(f"it is a {type(state).__name__}, not a mapping")
    if bad := list(find_not_finite(state)):
        raise ValueError(f"{len(bad)} tensors have NaN or infinity, {bad[0]} the first")
    _check_progress(state, target.state_dict())
    if optimizer is not None:
        _check_settings(state, optimizer)
    target.load_state_dict(state)
    if optimizer is not None:
        _check_shapes(optimizer)


def _describe(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    text = " ".join(str(error).split())  # on one line
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def _check_progress(state: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Check the iteration and the place in the schedule of the learning rate.

    Args:
        state: the state to load.
        expected: the present state of the same object.
    """
    if "iteration" in expected:
        iteration = state["iteration"]
        if type(iteration) is not int or iteration < 0:
            raise ValueError(f"its iteration is {iteration!r}, not a number of steps")
    if "LRScheduler" in expected.get("hooks", {}) and "LRScheduler" not in state["hooks"]:
        raise KeyError("LRScheduler")


def _check_settings(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Check that a state is of an optimizer with the same groups of parameters and settings."""
    # Checkpoints of 0.1 from Python configs have no key "_trainer".
    saved = state if "param_groups" in state else state.get("_trainer", state)["optimizer"]
    probe = copy.copy(optimizer)  # torch gives it the settings that older versions did not save
    probe.load_state_dict({**saved, "state": {}})
    for own, loaded in zip(optimizer.param_groups, probe.param_groups, strict=True):
        if missing := sorted(set(own) - set(loaded)):
            raise ValueError(f"it is of another optimizer, without {', '.join(missing)}")


def _check_shapes(optimizer: torch.optim.Optimizer) -> None:
    """Check that the state of each parameter has its shape, or is reduced over some dimensions."""
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if not isinstance(value, Tensor | int | float | None):
                raise ValueError(f"the {name} of a weight is a {type(value).__name__}")
            if not isinstance(value, Tensor) or value.dim() == 0:
                continue
            sizes = zip(value.shape, parameter.shape, strict=False)
            if value.dim() != parameter.dim() or any(size not in (1, own) for size, own in sizes):
                raise ValueError(
                    f"the {name} of a weight of shape {tuple(parameter.shape)} has shape "
                    f"{tuple(value.shape)}"
                )
