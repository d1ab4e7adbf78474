"""The numbers that a config may hold, so that an impossible one is named when it is read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from detectron2.config import CfgNode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from apdet.errors import UserError


@dataclass(frozen=True)
class Range:
    """A range of numbers, with its limits.

    Attributes:
        low: the least number.
        high: the greatest number.
        above: whether ``low`` itself is left out.
        whole: whether only whole numbers are in the range.
        or_none: whether None is allowed, too.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    whole: bool = False
    or_none: bool = False

    def __contains__(self, value: object) -> bool:
        if value is None:
            return self.or_none
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        if not math.isfinite(value) or (self.whole and value != int(value)):
            return False
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        limits = []
        if self.low > -math.inf:
            limits.append(f"above {self.low:g}" if self.above else f"of at least {self.low:g}")
        if self.high < math.inf:
            limits.append(f"of at most {self.high:.16g}")
        kind = "a whole number" if self.whole else "a number"
        return " ".join([kind, " and ".join(limits)]).strip() + " or None" * self.or_none


_COUNT = Range(1, whole=True)
_COUNT_OR_ZERO = Range(0, whole=True)
_POSITIVE = Range(0, above=True)
_AT_LEAST_0 = Range(0)
_FRACTION = Range(0, 1)
_SEED = Range(high=2**32 - 1, whole=True)  # numpy takes no larger ones

YAML = {
    "SEED": _SEED,
    "SOLVER.BASE_LR": _POSITIVE,
    "SOLVER.BASE_LR_END": _AT_LEAST_0,
    "SOLVER.BIAS_LR_FACTOR": _AT_LEAST_0,
    "SOLVER.CHECKPOINTS_TO_KEEP": _COUNT_OR_ZERO,
    "SOLVER.CHECKPOINT_PERIOD": _COUNT,
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": _POSITIVE,
    "SOLVER.GAMMA": _POSITIVE,
    "SOLVER.IMS_PER_BATCH": _COUNT,
    "SOLVER.MAX_ITER": _COUNT,
    "SOLVER.MOMENTUM": _FRACTION,
    "SOLVER.NUM_DECAYS": _COUNT,
    "SOLVER.REFERENCE_BATCH_SIZE": _COUNT_OR_ZERO,
    "SOLVER.REFERENCE_WORLD_SIZE": _COUNT_OR_ZERO,
    "SOLVER.WARMUP_FACTOR": _AT_LEAST_0,
    "SOLVER.WARMUP_ITERS": _COUNT_OR_ZERO,
    "SOLVER.WEIGHT_DECAY": _AT_LEAST_0,
    "SOLVER.WEIGHT_DECAY_BIAS": Range(0, or_none=True),
    "SOLVER.WEIGHT_DECAY_NORM": _AT_LEAST_0,
    "TEST.AUG.MAX_SIZE": _COUNT,
    "TEST.DETECTIONS_PER_IMAGE": _COUNT,
    "TEST.EVAL_PERIOD": _COUNT_OR_ZERO,
    "TEST.PRECISE_BN.NUM_ITER": _COUNT,
    "DATALOADER.NUM_WORKERS": _COUNT_OR_ZERO,
    "DATALOADER.REPEAT_THRESHOLD": _AT_LEAST_0,
}
# Of each entry of a list.
YAML_LISTS = {
    "SOLVER.STEPS": _COUNT,
    "TEST.AUG.MIN_SIZES": _COUNT,
    "TEST.KEYPOINT_OKS_SIGMAS": _POSITIVE,
}
# Of a Python config. Keys that are not in `train` may be absent.
LAZY = {
    "dataloader.test.num_workers": _COUNT_OR_ZERO,
    "dataloader.train.num_workers": _COUNT_OR_ZERO,
    "dataloader.train.total_batch_size": _COUNT,
    "optimizer.lr": _POSITIVE,
    "optimizer.momentum": _FRACTION,
    "optimizer.weight_decay": _AT_LEAST_0,
    "train.checkpointer.max_to_keep": Range(0, whole=True, or_none=True),
    "train.checkpointer.period": _COUNT,
    "train.eval_period": _COUNT_OR_ZERO,
    "train.log_period": _COUNT,
    "train.max_iter": _COUNT,
    "train.reference_batch_size": _COUNT_OR_ZERO,
    "train.reference_world_size": _COUNT_OR_ZERO,
    "train.seed": _SEED,
}


def check_yaml_ranges(cfg: CfgNode) -> None:
    """Check the numbers of a YAML config.

    Raises:
        UserError: a number is out of its range, or does not fit another one.
    """
    _check(YAML, {key: _select(cfg, key) for key in YAML})
    for key, allowed in YAML_LISTS.items():
        wrong = [value for value in _select(cfg, key) if value not in allowed]
        if wrong:
            raise UserError(f"{key} holds {wrong[0]!r}; each entry must be {allowed}")
    solver, steps = cfg.SOLVER, cfg.SOLVER.STEPS
    if any(step >= later for step, later in pairwise(steps)):
        raise UserError(f"SOLVER.STEPS is {list(steps)}; each step must be greater than the last")
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and solver.MAX_ITER in steps:
        raise UserError(
            f"SOLVER.STEPS holds SOLVER.MAX_ITER, {solver.MAX_ITER}; take it out, for the training "
            "ends there"
        )
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR" and solver.BASE_LR_END > solver.BASE_LR:
        raise UserError(
            f"SOLVER.BASE_LR_END is {solver.BASE_LR_END}; it cannot be above SOLVER.BASE_LR, "
            f"{solver.BASE_LR}"
        )


def check_lazy_ranges(cfg: DictConfig) -> None:
    """Check the numbers of a Python config.

    Raises:
        UserError: a number is out of its range, or cannot be read.
    """
    try:
        values = {key: OmegaConf.select(cfg, key) for key in LAZY}
    except OmegaConfBaseException as error:
        raise UserError(f"a number of the config cannot be read: {error}") from error
    given = {k: v for k, v in values.items() if v is not None or k.startswith("train.")}
    _check(LAZY, given)


def _check(ranges: Mapping[str, Range], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if value not in ranges[key]:
            raise UserError(f"{key} is {value!r}; give {ranges[key]}")


def _select(cfg: CfgNode, key: str) -> Any:
    node: Any = cfg
    for part in key.split("."):
        node = node[part]
    return node
