"""Supports losses that were written for apdet 0.1.

The signature of such a loss has the arguments that it needs from the detector: ``normalizer``,
``group`` and ``moving_counts``. The last one is a buffer of length ``bins``, another argument of
the loss. The loss updates the buffer in place.
"""

import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def read_signature(
    loss: Callable[..., Any],
) -> tuple[tuple[str, ...], Callable[..., nn.Module] | None]:
    """Read from the signature of a loss what it needs, and build its module if it has a state.

    Returns:
        ``needs`` and ``module``, see :class:`apdet.losses.interface.Interface`.
    """
    parameters = inspect.signature(loss).parameters
    needs = tuple(name for name in ("normalizer", "group") if name in parameters)
    has_state = "moving_counts" in parameters
    name = getattr(loss, "__name__", repr(loss))
    if needs:
        _warn(f"{name} names {' and '.join(needs)} in its signature: set {name}.needs = {needs}")
    if has_state:
        _warn(
            f"{name} names moving_counts in its signature: keep them in an nn.Module that calls "
            f"{name}, and set {name}.module to its class, as apdet.losses.ghm does"
        )
    return needs, partial(_MovingCounts, loss) if has_state else None


def _warn(message: str) -> None:
    message += " (see apdet.losses.interface). A later version will not read signatures."
    # Not a DeprecationWarning, which Python hides: the loss is the user's own.
    warnings.warn(message, FutureWarning, stacklevel=2)


class _MovingCounts(nn.Module):
    """Keeps the ``moving_counts`` of a loss that updates them in place."""

    moving_counts: Tensor

    def __init__(self, loss: Callable[..., Tensor], **kwargs: Any):
        super().__init__()
        self.loss = partial(loss, **kwargs)
        bins = inspect.signature(self.loss).parameters["bins"].default
        self.register_buffer("moving_counts", torch.zeros(bins))

    def forward(self, logits: Tensor, targets: Tensor, **given: Any) -> Tensor:
        return self.loss(logits, targets, moving_counts=self.moving_counts, **given)
