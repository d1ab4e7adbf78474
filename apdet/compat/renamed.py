"""Serves former names in a module."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any


def renamed(module: str, **present_names: str) -> Callable[[str], Any]:
    """Make a ``__getattr__`` for a module that serves former names, with a DeprecationWarning.

        __getattr__ = renamed(__name__, former_name="present_name", moved="package.module.name")

    Args:
        module: the name of the module.
        present_names: the present name for each former name. A name with dots is in the module
            before its last dot; a name without dots is in the same module.
    """

    def getattr_of_module(former: str) -> Any:
        if former not in present_names:
            raise AttributeError(f"module {module!r} has no attribute {former!r}")
        present = present_names[former]
        warnings.warn(f"{module}.{former} is now {present}", DeprecationWarning, stacklevel=2)
        home, _, name = present.rpartition(".")
        return getattr(importlib.import_module(home or module), name)

    return getattr_of_module
