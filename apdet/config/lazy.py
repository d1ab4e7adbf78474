"""Reads and checks Python configs (Detectron2's LazyConfig), and builds their parts."""

import difflib
import traceback
from collections.abc import Sequence
from typing import Any

from detectron2.config import LazyConfig, instantiate
from detectron2.model_zoo import get_config
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from apdet.config.ranges import check_lazy_ranges
from apdet.errors import UserError
from apdet.files import check_regular_file

EXAMPLE = "configs/lazy/digits_retinanet_ap.py"

_REQUIRED = (
    *("model", "optimizer.params", "lr_multiplier", "train", "datasets.train", "datasets.test"),
    *("dataloader.train", "dataloader.test", "dataloader.evaluator"),
)
# The keys that apdet adds to `train` of Detectron2's common/train.py, with their defaults.
_TRAIN = {
    # The seed of all random numbers. Below 0: a random seed.
    "seed": -1,
    # "float16" or "bfloat16". It is used if amp.enabled is True.
    "amp": {"precision": "float16"},
    # The arguments of `apdet.config.clipping.clip_gradients`. None: gradients are not clipped.
    "clip_gradients": None,
    # See MODEL.ALLOW_WEIGHT_MISMATCH and MODEL.WEIGHTS_CLASSES in `apdet.config.defaults`.
    "allow_weight_mismatch": False,
    "weights_classes": None,
    # See TEST.BEST_CHECKPOINT_METRIC in `apdet.config.defaults`.
    "best_checkpoint_metric": "bbox/AP",
    # The batch size for which optimizer.lr, max_iter and all periods are set. With another
    # dataloader.train.total_batch_size they are scaled linearly. 0: they are never scaled.
    "reference_batch_size": 0,
    # The number of processes for which they and total_batch_size are set. With another number all
    # are scaled, so that each process has as many images. 0: they are never scaled.
    "reference_world_size": 0,
    # See TEST.EXPECTED_RESULTS of Detectron2.
    "expected_results": [],
    # Testing on several scales after the training, with the arguments of `MultiScaleTesting`, such
    # as {sizes: [400, 500], max_size: 833}. None: testing on one scale only.
    "multi_scale_testing": None,
}
# The keys of `datasets` that may be left out. See DATASETS.VAL in `apdet.config.defaults`.
_DATASETS: dict[str, list] = {"register": [], "val": []}


def load_lazy_config(filename: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Read a Python config. The file is run.

    Args:
        filename: a config with the parts of ``configs/lazy/digits_retinanet_ap.py``. Keys that are
            missing in its ``train`` get defaults.
        overrides: ``key=value``, as on the command line.

    Raises:
        UserError: the file is missing, is not a Python file or fails; a required part is missing;
            an override names a key that does not exist; or a value has the wrong type or is out of
            range.
    """
    cfg = _load(filename)
    missing = [key for key in _REQUIRED if not _has(cfg, key)]
    if missing:
        raise UserError(
            f"{filename} lacks {', '.join(missing)}; {EXAMPLE} shows what a Python config has"
        )
    cfg.train = OmegaConf.merge(get_config("common/train.py").train, _TRAIN, cfg.train)
    cfg.datasets = OmegaConf.merge(_DATASETS, cfg.datasets)
    for override in overrides:
        try:
            _override(cfg, override)
        except UserError:
            raise
        except Exception as error:  # whatever the parsers raise
            raise UserError(
                f"{override!r} cannot be read as key=value: {' '.join(str(error).split())}"
            ) from error
    check_lazy_ranges(cfg)
    return cfg


def _load(filename: str) -> DictConfig:
    check_regular_file(filename, missing="no such config file")
    if not filename.endswith(".py"):
        # Detectron2 also loads YAML here, by a loader that may run code.
        raise UserError(f"{filename}: not a Python config; its name must end in .py")
    try:
        cfg = LazyConfig.load(filename)
    except Exception as error:  # whatever the user's code raises
        frames = traceback.extract_tb(error.__traceback__)
        line = [f", line {frame.lineno}" for frame in frames if frame.filename == filename][-1:]
        reason = error.__cause__ or error  # only the cause says where the syntax is wrong
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
    # A new key may be a keyword of a call. Anywhere else it is a mistake.
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
    """Build the object that the part ``key`` of the config describes.

    Raises:
        UserError: the arguments do not fit, or the part refers to a key that does not exist.
    """
    try:
        return instantiate(OmegaConf.select(cfg, key))
    except (TypeError, AssertionError, ImportError, OmegaConfBaseException) as error:
        raise UserError(f"{key} cannot be built: {type(error).__name__}: {error}") from error
