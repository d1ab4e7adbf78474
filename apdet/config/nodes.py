"""Reads nodes of a YAML config by their keys."""

from typing import Any

from detectron2.config import CfgNode


def select(cfg: CfgNode, key: str) -> Any:
    """The value of a key, such as "SOLVER.BASE_LR"."""
    node: Any = cfg
    for part in key.split("."):
        node = node[part]
    return node
