"""Detectron2's Python configs (LazyConfig): read, checked, and their parts built."""

import difflib
import os
import traceback
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.model_zoo import get_config
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from apdet.config.yaml import add_apdet_config
from apdet.errors import UserError

EXAMPLE = "configs/lazy/digits_retinanet_ap.py"

_NEEDED = (
    *("model", "optimizer.params", "lr_multiplier", "train", "datasets.train", "datasets.test"),
    *("dataloader.train", "dataloader.test", "dataloader.evaluator"),
)
# Beside Detectron2's common/train.py; they mean what the YAML keys do that `as_yaml_config` sets.
_TRAIN = {
    "seed": -1,
    "amp": {"precision": "float16"},
    "clip_gradients": None,
    "allow_weight_mismatch": False,
    "weights_classes": None,
    "best_checkpoint_metric": "bbox/AP",
}
# Errors name the keys of YAML; these are the same in a LazyConfig.
_NAMES = {
    "MODEL.CLS_LOSS.NAME": "cls_loss.loss",
    "MODEL.CLS_LOSS.KWARGS": "cls_loss.kwargs",
    "MODEL.WEIGHTS_CLASSES": "train.weights_classes",
    "MODEL.WEIGHTS <": "train.init_checkpoint=<",
    "MODEL.WEIGHTS": "train.init_checkpoint",
    "MODEL.ALLOW_WEIGHT_MISMATCH True": "train.allow_weight_mismatch=True",
    "SOLVER.AMP.PRECISION": "train.amp.precision",
    "SOLVER.IMS_PER_BATCH": "dataloader.train.total_batch_size",
    "DATASETS.TRAIN or TEST": "datasets.train or test",
    "DATASETS.TRAIN and TEST": "datasets.train and test",
    "DATASETS.TRAIN": "datasets.train",
    "DATASETS.TEST": "datasets.test",
    "DATASETS.REGISTER": "datasets.register",
    "OUTPUT_DIR <": "train.output_dir=<",
    "OUTPUT_DIR": "train.output_dir",
}


def load_lazy_config(filename: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Read a Python config, which runs it.

    Args:
        filename: of a config with the parts that ``configs/lazy/digits_retinanet_ap.py`` has. What
            its ``train`` leaves out is as in Detectron2's ``common/train.py``.
        overrides: ``key=value``, as on the command line.

    Raises:
        UserError: a missing or failing file, or one in YAML, whose loader might run code that no
            one sees; a part that is missing, an override of what is not.
    """
    cfg = _load(filename)
    missing = [key for key in _NEEDED if not _has(cfg, key)]
    if missing:
        raise UserError(
            f"{filename} lacks {', '.join(missing)}; {EXAMPLE} shows what a LazyConfig has "
            "(tools/train_net.py is for configs in YAML)"
        )
    cfg.train = OmegaConf.merge(get_config("common/train.py").train, _TRAIN, cfg.train)
    for override in overrides:
        try:
            _override(cfg, override)
        except UserError:
            raise
        except Exception as error:  # whatever the parsers raise
            raise UserError(f"{override!r} is no key=value of the config: {error}") from error
    return cfg


def _load(filename: str) -> DictConfig:
    if not os.path.isfile(filename):
        raise UserError(f"{filename}: no such config file")
    if not filename.endswith(".py"):
        raise UserError(f"{filename}: no Python config; tools/train_net.py is for those in YAML")
    try:
        cfg = LazyConfig.load(filename)
    except Exception as error:  # whatever the user's code raises
        frames = traceback.extract_tb(error.__traceback__)
        line = [f", line {frame.lineno}" for frame in frames if frame.filename == filename][-1:]
        reason = error.__cause__ or error  # where the syntax is wrong is said by the cause alone
        message = f"{filename}{''.join(line)}: {type(reason).__name__}: {reason}"
        raise UserError(message) from error
    if not OmegaConf.is_dict(cfg):
        raise UserError(f"{filename}: a config file must hold a mapping of keys")
    return cfg


def _override(cfg: DictConfig, override: str) -> None:
    key = override.partition("=")[0]
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    parts = key.split(".")
    outer = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    # A call may be given keywords that the config leaves out; elsewhere a new key is a slip.
    is_keyword = OmegaConf.is_dict(node) and any(_has(cfg, f"{o}._target_") for o in outer)
    if not (_has(cfg, key) or is_keyword):
        siblings = [str(k) for k in node] if OmegaConf.is_dict(node) else []
        close = difflib.get_close_matches(name, siblings, n=1)
        hint = f"; did you mean {key.removesuffix(name)}{close[0]}?" if close else ""
        raise UserError(f"the config has no {key}{hint}")
    former = OmegaConf.select(cfg, key)
    LazyConfig.apply_overrides(cfg, [override])
    value = OmegaConf.select(cfg, key)
    if isinstance(former, int | float) and not isinstance(value, int | float):
        raise UserError(f"{key} is {value!r}; give a number or truth value, as {former!r}")


def _has(cfg: DictConfig, key: str) -> bool:
    nothing = object()
    return OmegaConf.select(cfg, key, default=nothing) is not nothing


def build(cfg: DictConfig, key: str) -> Any:
    """What a part of the config describes.

    Raises:
        UserError: arguments that the part does not take, or a reference to nothing.
    """
    try:
        return instantiate(OmegaConf.select(cfg, key))
    except (TypeError, AssertionError, ImportError, OmegaConfBaseException) as error:
        raise UserError(f"{key} cannot be built: {type(error).__name__}: {error}") from error


def as_yaml_config(cfg: DictConfig) -> CfgNode:
    """A config of YAML keys that says what ``train`` and ``datasets`` say, for what reads those.

    Raises:
        UserError: ``train.clip_gradients`` has a key that ``SOLVER.CLIP_GRADIENTS`` has not.
    """
    node, train = get_cfg(), OmegaConf.to_container(cfg.train, resolve=True)
    add_apdet_config(node)
    node.OUTPUT_DIR, node.MODEL.DEVICE = train["output_dir"], train["device"]
    target = cfg.model._target_
    node.MODEL.META_ARCHITECTURE = getattr(target, "__name__", str(target).rpartition(".")[2])
    node.MODEL.ALLOW_WEIGHT_MISMATCH = train["allow_weight_mismatch"]
    node.MODEL.WEIGHTS_CLASSES = train["weights_classes"]
    node.DATASETS.TRAIN, node.DATASETS.TEST = list(cfg.datasets.train), list(cfg.datasets.test)
    node.SOLVER.AMP.ENABLED = train["amp"]["enabled"]
    node.SOLVER.AMP.PRECISION = train["amp"]["precision"]
    clip = {key.upper(): value for key, value in (train["clip_gradients"] or {}).items()}
    unknown = clip.keys() - node.SOLVER.CLIP_GRADIENTS.keys()
    if unknown:
        known = [key.lower() for key in node.SOLVER.CLIP_GRADIENTS if key != "ENABLED"]
        raise UserError(f"train.clip_gradients has {min(unknown).lower()}; it takes {known}")
    node.SOLVER.CLIP_GRADIENTS.update({"ENABLED": bool(clip), **clip})
    return node


def in_lazy_names(message: str) -> str:
    """An error message with the names that keys have in a LazyConfig."""
    for yaml_key, name in _NAMES.items():
        message = message.replace(yaml_key, name)
    return message
