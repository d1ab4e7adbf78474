"""Writes the record of a config to the output folder."""

import os
from pathlib import Path

from detectron2.config import CfgNode, LazyConfig
from omegaconf import DictConfig

from apdet.config.lazy_nodes import changed, plain
from apdet.files import whole_file


def write_config(config: CfgNode | DictConfig, path: str | os.PathLike) -> None:
    """Write a config to a YAML file, with the values that are used.

    A YAML config can be trained from that file again. Of a Python config it is a record only.

    Raises:
        UserError: the file cannot be written.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if isinstance(config, DictConfig):
        LazyConfig.save(_without_references_to_no_test_set(config), os.fspath(path))
    else:
        with whole_file(path) as file:
            file.write(config.dump().encode())


def _without_references_to_no_test_set(config: DictConfig) -> DictConfig:
    """Replace ``${datasets.test.0}`` where there is no test set, which cannot be written.

    The first validation set takes its place. Without one, loader and evaluator are not used.
    """
    if config.datasets.test:
        return config
    names = config.datasets.val[:1]
    used = changed(config, {"datasets.test": names}).dataloader
    for part in ("test", "evaluator"):
        config = changed(config, {f"dataloader.{part}": plain(used[part]) if names else None})
    return config
