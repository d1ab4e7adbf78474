"""Detectron2's gradient clipping, for an optimizer that a Python config describes."""

from collections.abc import Callable
from functools import partial

import torch
from detectron2.solver.build import _generate_optimizer_class_with_gradient_clipping
from torch import nn

from apdet.errors import ArgumentError


def clip_gradients(
    optimizer: torch.optim.Optimizer,
    *,
    enabled: bool = True,
    clip_type: str = "value",
    clip_value: float = 1.0,
    norm_type: float = 2.0,
    **unknown: object,
) -> torch.optim.Optimizer:
    """Let an optimizer clip the gradient of each parameter before a step.

    The arguments have the names of Detectron2's keys in ``SOLVER.CLIP_GRADIENTS``.

    Args:
        optimizer: changed in place.
        enabled: whether gradients are clipped at all.
        clip_type: "value" limits each entry to [-clip_value, clip_value]; "norm" limits the p-norm
            to clip_value.
        clip_value: the limit.
        norm_type: p, for the norm.
        unknown: any other argument raises an error.

    Returns:
        ``optimizer``.

    Raises:
        ArgumentError: an unknown argument or ``clip_type``.
    """
    clippers: dict[str, Callable] = {
        "value": partial(nn.utils.clip_grad_value_, clip_value=clip_value),
        "norm": partial(nn.utils.clip_grad_norm_, max_norm=clip_value, norm_type=norm_type),
    }
    if unknown:
        raise ArgumentError(
            "TrainingPlan",
            "{clip_gradients} has {key}; it takes enabled, clip_type, clip_value and norm_type",
            key=min(unknown),
        )
    if clip_type not in clippers:
        raise ArgumentError(
            "TrainingPlan",
            "{clip_gradients} has clip_type {value!r}; choose one of {choices}",
            value=clip_type,
            choices=list(clippers),
        )
    if enabled:
        optimizer.__class__ = _generate_optimizer_class_with_gradient_clipping(
            type(optimizer), per_param_clipper=clippers[clip_type]
        )
    return optimizer
