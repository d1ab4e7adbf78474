"""Small helpers for the nodes of a Python config."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf


def changed(cfg: DictConfig, changes: Mapping[str, Any]) -> DictConfig:
    """Copy the config, and set the keys of ``changes`` in the copy."""
    copied = copy.deepcopy(cfg)
    for key, value in changes.items():
        parent, _, name = key.rpartition(".")
        OmegaConf.select(copied, parent)[name] = value
    return copied


def plain(value: Any) -> Any:
    """Convert a node to plain Python values; other values stay as they are."""
    is_config = isinstance(value, DictConfig | ListConfig)
    return OmegaConf.to_container(value, resolve=True) if is_config else value


def target_name(target: Any) -> str:
    """The name of a call's target. The target is an object or its dotted name."""
    return getattr(target, "__name__", str(target).rpartition(".")[2])


def target_names(target: Any) -> list[str]:
    """The name of a call's target; for a class, also the names of its base classes."""
    found = locate(target) if isinstance(target, str) else target
    if inspect.isclass(found):
        return [base.__name__ for base in found.__mro__]
    return [target_name(target)]
