"""The interface between a loss and the detector that calls it.

A loss is a function ``(logits, targets, *, hyper-parameters) -> ()``. The function can have these
attributes. All of them are optional:

    softmax   bool. Whether the loss is over K classes and the background. It is then called with
              logits (*, K+1), where the last class is the background, and labels (*).
    needs     tuple of str. The keyword arguments that the detector must give in each call:
                  "normalizer"   () the divisor of a loss that sums over anchors
                  "group"        the processes that rank together, or None
    module    nn.Module class that keeps the state of the loss, if it has any. It is built with the
              hyper-parameters, and is called in place of the function.

The losses of this package set the attributes with the decorators below. For your own loss, a plain
assignment is enough:

    my_loss.needs = ("normalizer",)
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from torch import nn

from apdet.losses.legacy import read_signature

Loss = TypeVar("Loss", bound=Callable[..., Any])
Module = TypeVar("Module", bound=type[nn.Module])


def declare(*, softmax: bool = False, needs: tuple[str, ...] = ()) -> Callable[[Loss], Loss]:
    """Make a decorator that sets the attributes ``softmax`` and ``needs`` of a loss."""

    def decorate(loss: Loss) -> Loss:
        attributes: Any = loss
        attributes.softmax, attributes.needs = softmax, needs
        return loss

    return decorate


def keeps_state_of(loss: Any) -> Callable[[Module], Module]:
    """Make a decorator for the class that keeps the state of ``loss``; sets ``loss.module``."""

    def decorate(module: Module) -> Module:
        loss.module = module
        return module

    return decorate


def unwrap(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function inside a `functools.partial`, or ``loss`` itself."""
    while isinstance(loss, partial):
        loss = loss.func
    return loss


class Interface(NamedTuple):
    """The properties of a loss that a detector must know.

    Attributes:
        softmax: whether the loss is over K classes and the background.
        needs: the keyword arguments that the detector must give.
        module: builds the module that keeps the state of the loss; None: the loss has no state.
        hyper_parameters: the names of all keyword arguments that the loss can be built with.
    """

    softmax: bool
    needs: tuple[str, ...]
    module: Callable[..., nn.Module] | None
    hyper_parameters: tuple[str, ...]


def interface_of(loss: Callable[..., Any]) -> Interface:
    """Read the attributes of a loss.

    A loss for apdet 0.1 has neither ``needs`` nor ``module``. What it needs is then read from its
    signature, with a FutureWarning.

    Args:
        loss: a loss, or a `functools.partial` of it.
    """
    # The first two arguments are logits and targets.
    accepted = list(inspect.signature(loss).parameters)[2:]
    function: Any = unwrap(loss)
    softmax = getattr(function, "softmax", False)
    needs, module = getattr(function, "needs", ()), getattr(function, "module", None)
    if isinstance(needs, str):
        needs = (needs,)
    if module is not None:
        accepted = list(inspect.signature(module).parameters)
    elif not hasattr(function, "needs"):
        needs, module = read_signature(loss)
        accepted = [name for name in accepted if name != "moving_counts"]
    accepted = [name for name in accepted if name not in needs]
    return Interface(softmax, tuple(needs), module, tuple(accepted))
