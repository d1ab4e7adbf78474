"""Gives the values of a YAML config the types of the keys' defaults, or refuses them."""

import reprlib
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode

from apdet.errors import UserError

_WANTED = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    tuple: "a list",
}
# Texts for which null has always meant "".
_MAY_BE_EMPTY = {"MODEL.WEIGHTS"}


def fit_values(values: dict[str, Any], cfg: CfgNode, *, prefix: str = "") -> dict[str, Any]:
    """Give each value in ``values`` the type of the value in ``cfg``.

    A whole number serves as a number, and 1e3 as a whole number. Keys that ``cfg`` does not have
    are left as they are.

    Args:
        values: the content of a YAML file.
        cfg: the defaults.
        prefix: the path of ``values`` in the config, such as "SOLVER.".

    Raises:
        UserError: a value is missing or has another type.
    """
    fitted = dict(values)
    for key, value in values.items():
        if key not in cfg:
            continue
        if isinstance(cfg[key], CfgNode) and isinstance(value, dict):
            fitted[key] = fit_values(value, cfg[key], prefix=f"{prefix}{key}.")
        else:
            fitted[key] = _fit(value, cfg[key], prefix + key)
    return fitted


def fit_overrides(overrides: Sequence[str], cfg: CfgNode) -> list[Any]:
    """Do the same as `fit_values` for alternating keys and values of a command line."""
    fitted: list[Any] = list(overrides)
    for index in range(0, len(overrides) - 1, 2):
        key, value = overrides[index : index + 2]
        default: Any = cfg
        for part in key.split("."):
            default = default.get(part) if isinstance(default, CfgNode) else None
        fitted[index + 1] = _fit(value, default, key)
    return fitted


def _fit(value: Any, default: Any, key: str) -> Any:
    """Give a value the type of its default. A default of None takes any value."""
    if default is None:
        return value
    read = CfgNode._decode_cfg_value(value)  # a text such as "0.01" may be a number
    if isinstance(default, float) and type(read) is int:
        return float(read)
    if type(default) is int and isinstance(read, float) and read.is_integer():
        return int(read)
    if read is None and key in _MAY_BE_EMPTY:
        return ""
    if isinstance(read, list | tuple) and isinstance(default, list | tuple):
        return _whole_numbers(read) if default and type(default[0]) is int else read
    if type(read) is type(default):
        return value if isinstance(read, str) else read
    wanted = _WANTED.get(type(default), "a mapping of keys, or set one of its keys at a time")
    given = "empty" if read is None else reprlib.repr(value)
    raise UserError(f"{key} is {given}; give {wanted}")


def _whole_numbers(values: Sequence[Any]) -> list[Any]:
    """Turn 1e3 into 1000. Whatever is not a whole number is left to the checks of ranges."""
    return [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
