"""Finds the loss that a config names: one of :mod:`apdet.losses`, or the user's own function."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from apdet import losses
from apdet.errors import ArgumentError
from apdet.losses.interface import Interface, interface_of

# {keyword argument that a detector can give to a loss: its value when the loss is tried out}. See
# :mod:`apdet.losses.interface`.
GIVEN = {"normalizer": torch.ones(()), "group": None}

_custom_code_is_allowed = False


def allow_custom_code() -> None:
    """Allow losses with the name ``package.module:function``, which are imported.

    Modules in the working folder are found too. A config file cannot allow this by itself, because
    an import runs code.
    """
    global _custom_code_is_allowed
    _custom_code_is_allowed = True
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def find_loss(loss: str | Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Find a loss by its name.

    Args:
        loss: a name in ``apdet.losses.LOSSES``, or ``package.module:function`` after a call of
            :func:`allow_custom_code`. A function is returned as it is.

    Raises:
        ArgumentError: no loss has the name.
    """
    if not isinstance(loss, str):
        return loss
    if ":" in loss:
        return _import(loss)
    if loss not in losses.LOSSES:
        raise ArgumentError(
            "ClsLoss",
            "{loss} is {name!r}; choose one of {choices}, or name your own: "
            "package.module:function",
            name=loss,
            choices=list(losses.LOSSES),
        )
    return getattr(losses, loss)


def stand_in(loss: str | Callable[..., Tensor]) -> str:
    """The name of a loss of apdet with which a detector predicts as with any other loss."""
    return "ohem_loss" if interface_of(find_loss(loss)).softmax else "ap_loss"


def bind_loss(
    loss: str | Callable[..., Tensor], kwargs: Mapping[str, Any]
) -> Callable[..., Tensor]:
    """Bind the hyper-parameters of a loss, and call the loss once on one entry to check them.

    Args:
        loss: a loss or its name, as in :func:`find_loss`.
        kwargs: the hyper-parameters of the loss.

    Returns:
        A function, or a new module if the loss has a state. It takes logits, targets and the
        keyword arguments that the loss needs.

    Raises:
        ArgumentError: no loss has the name, the loss refuses one of ``kwargs`` or its value, or the
            loss needs an argument that no detector gives.
    """
    function = find_loss(loss)
    interface = interface_of(function)
    name = getattr(function, "__name__", repr(function))
    _check_names(name, interface, kwargs)

    def build() -> Callable[..., Tensor]:
        bound = partial(function, **kwargs)
        return bound if interface.module is None else interface.module(**bound.keywords)

    logits = torch.zeros((1, 1) if interface.softmax else 1)
    try:
        given = {key: GIVEN[key] for key in interface.needs}
        build()(logits, torch.zeros(1, dtype=torch.int64), **given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(
            "ClsLoss",
            "{kwargs} {value} of {name}: {error}",
            value=dict(kwargs),
            name=name,
            error=error,
        ) from error
    return build()  # a new one: the trial has changed the state of a module


def _check_names(name: str, interface: Interface, kwargs: Mapping[str, Any]) -> None:
    for key in interface.needs:
        if key not in GIVEN:
            raise ArgumentError(
                "ClsLoss",
                "{loss}: {name} needs {key!r}, but a detector gives only {given}",
                name=name,
                key=key,
                given=list(GIVEN),
            )
    for key in kwargs:
        if key not in interface.hyper_parameters:
            raise ArgumentError(
                "ClsLoss",
                "{kwargs} has {key!r}; {name} takes {accepted}",
                name=name,
                key=key,
                accepted=list(interface.hyper_parameters),
            )


def _import(name: str) -> Callable[..., Tensor]:
    if not _custom_code_is_allowed:
        raise ArgumentError(
            "ClsLoss",
            "{loss} is {name!r}, which is code to be run; if you trust it, call with "
            "--allow-custom-code",
            name=name,
        )
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's code raises
        raise ArgumentError(
            "ClsLoss",
            "{loss} is {name!r}, but importing {module} fails: {error} "
            "(searched: {folder} and PYTHONPATH)",
            name=name,
            module=module_name,
            error=f"{type(error).__name__}: {error}",
            folder=os.getcwd(),
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ArgumentError(
            "ClsLoss",
            "{loss} is {name!r}, but {file} has no function {function!r}",
            name=name,
            file=module.__file__,
            function=function_name,
        )
    return function
