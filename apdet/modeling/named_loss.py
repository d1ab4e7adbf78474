"""The loss that a config names: one of :mod:`apdet.losses`, or a function of the user's own."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from apdet import losses
from apdet.errors import UserError

# Keyword arguments of a loss that are the detector's to give, not the config's.
GIVEN = ("normalizer", "group", "moving_counts")

_custom_code_is_allowed = False


def allow_custom_code() -> None:
    """From now on, ``MODEL.CLS_LOSS.NAME`` may be ``package.module:function``, which is imported.

    Modules of the working directory are found. Config files cannot allow it: to import is to run.
    """
    global _custom_code_is_allowed
    _custom_code_is_allowed = True
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def bind_loss(loss: str | Callable[..., Tensor], kwargs: Mapping) -> partial:
    """The loss with its hyper-parameters bound, and tried out on one entry.

    Args:
        loss: a name in :mod:`apdet.losses`; or, after :func:`allow_custom_code`,
            ``package.module:function``; or a function that is called as those are.
        kwargs: its hyper-parameters.

    Raises:
        UserError: a name that is no loss, or a keyword or value that the loss does not take.
    """
    function = _find(loss) if isinstance(loss, str) else loss
    name = getattr(function, "__name__", repr(function))
    # The first two are the tensors.
    parameters = list(inspect.signature(function).parameters)[2:]
    accepted = [key for key in parameters if key not in GIVEN]
    for key in kwargs:
        if key not in accepted:
            raise UserError(f"MODEL.CLS_LOSS.KWARGS has {key!r}; {name} takes {accepted}")
    bound = partial(function, **kwargs)
    shape = (1, 1) if is_softmax(bound) else (1,)
    try:
        bound(torch.zeros(shape), torch.zeros(1, dtype=torch.int64))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"MODEL.CLS_LOSS.KWARGS {dict(kwargs)} of {name}: {error}") from error
    return bound


def is_softmax(loss: partial) -> bool:
    """Whether a bound loss is over classes and background, as in ``apdet.losses.SOFTMAX``.

    A function of one's own says so by an attribute, ``my_loss.softmax = True``.
    """
    named = [getattr(losses, name) for name in losses.SOFTMAX]
    return loss.func in named or getattr(loss.func, "softmax", False)


def _find(name: str) -> Callable[..., Tensor]:
    if ":" in name:
        return _import(name)
    if name not in losses.__all__:
        raise UserError(
            f"MODEL.CLS_LOSS.NAME is {name!r}; choose one of {losses.__all__}, "
            "or name your own: package.module:function"
        )
    return getattr(losses, name)


def _import(name: str) -> Callable[..., Tensor]:
    if not _custom_code_is_allowed:
        raise UserError(
            f"MODEL.CLS_LOSS.NAME is {name!r}, which is code to be run; "
            "if you trust it, call with --allow-custom-code"
        )
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's code raises
        raise UserError(
            f"MODEL.CLS_LOSS.NAME is {name!r}, but importing {module_name} fails: "
            f"{type(error).__name__}: {error} (searched: {os.getcwd()} and PYTHONPATH)"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(
            f"MODEL.CLS_LOSS.NAME is {name!r}, but {module.__file__} has no function "
            f"{function_name!r}"
        )
    return function
