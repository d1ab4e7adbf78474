"""Reads a config of either kind, YAML or Python."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from detectron2.config import CfgNode
from omegaconf import DictConfig

from apdet.config.choices import check_yaml_choices
from apdet.config.datasets import register_datasets
from apdet.config.device import choose_device
from apdet.config.lazy import load_lazy_config
from apdet.config.lazy_plan import lazy_key, plan_from_lazy
from apdet.config.names import naming, yaml_key
from apdet.config.plan import TrainingPlan
from apdet.config.shipped import find_config
from apdet.config.yaml import load_config
from apdet.config.yaml_plan import plan_from_yaml
from apdet.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """A config whose data sets have not been read yet.

    Attributes:
        path: the file, the user's own or a shipped one.
        content: a CfgNode for YAML, a DictConfig for Python.
        output_dir: the folder for all output files.
        key_of: (owner, argument) -> the key that an argument is read from, or None.
        repeated: the keys that are given several times on the command line.
    """

    path: str
    content: CfgNode | DictConfig
    output_dir: str
    key_of: Callable[[str, str], str | None]
    repeated: Sequence[str] = ()

    def plan(self, *, num_processes: int | None = None) -> TrainingPlan:
        """Register the data sets, and make the plan of the training.

        Args:
            num_processes: the number of processes that the training will have; None: those that run
                now.

        Raises:
            UserError: the data sets cannot be read.
        """
        if self.repeated:
            keys = ", ".join(self.repeated)
            logger.warning(f"The command line gives several values of {keys}; the last one counts")
        with naming(self.key_of):
            if isinstance(self.content, DictConfig):
                return plan_from_lazy(self.content, num_processes=num_processes)
            check_yaml_choices(self.content)
            register_datasets(self.content)
            return plan_from_yaml(self.content, num_processes=num_processes)


def read_config(
    config_file: str | os.PathLike, overrides: Sequence[str] = (), *, device: str = ""
) -> Config:
    """Read a YAML config, or run and read a Python config.

    Args:
        config_file: the path of a file, or the name of a shipped config, such as
            ``digits/retinanet_ap.yaml``. A name that ends in ``.py`` is a Python config.
        overrides: alternating keys and values for YAML, ``key=value`` for Python.
        device: the device of the model. Empty: the device of the config, but the CPU if the config
            asks for CUDA and there is none.

    Raises:
        UserError: the config is missing or cannot be read.
    """
    path = find_config(config_file)
    if path is None:
        raise UserError(f"{config_file}: no such config file")
    if path.suffix == ".py":
        lazy = load_lazy_config(str(path), overrides)
        lazy.train.device = choose_device(device, lazy.train.device, "train.device")
        repeated = _repeated(override.partition("=")[0] for override in overrides)
        key_of = partial(lazy_key, lazy)
        return Config(str(path), lazy, lazy.train.output_dir, key_of, repeated)
    cfg = load_config(path, list(overrides))
    cfg.MODEL.DEVICE = choose_device(device, cfg.MODEL.DEVICE, "MODEL.DEVICE")
    return Config(str(path), cfg, cfg.OUTPUT_DIR, yaml_key, _repeated(overrides[0::2]))


def _repeated(keys: Iterable[str]) -> list[str]:
    return [key for key, count in Counter(keys).items() if count > 1]
