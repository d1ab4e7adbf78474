"""The numbers that a config may hold, so that an impossible one is named when it is read."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from detectron2.config import CfgNode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from apdet.config.nodes import select
from apdet.config.number_range import Range
from apdet.errors import UserError

_COUNT = Range(1, whole=True)
_COUNT_OR_ZERO = Range(0, whole=True)
_POSITIVE = Range(0, above=True)
_AT_LEAST_0 = Range(0)
_FRACTION = Range(0, 1)
_PROBABILITY = Range(0, 1, above=True, below=True)
_SEED = Range(high=2**32 - 1, whole=True)  # numpy takes no larger ones

YAML = {
    "SEED": _SEED,
    "INPUT.MAX_SIZE_TEST": _COUNT,
    "INPUT.MAX_SIZE_TRAIN": _COUNT,
    "INPUT.MIN_SIZE_TEST": _COUNT_OR_ZERO,  # 0: images keep their size
    "MODEL.ANCHOR_GENERATOR.OFFSET": Range(0, 1, below=True),
    "MODEL.BACKBONE.FREEZE_AT": Range(0, 5, whole=True),
    "MODEL.FPN.OUT_CHANNELS": _COUNT,
    "MODEL.RESNETS.NUM_GROUPS": _COUNT,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": _COUNT,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": _COUNT,
    "MODEL.RESNETS.WIDTH_PER_GROUP": _COUNT,
    "MODEL.RETINANET.BBOX_PRED_INIT_STD": _POSITIVE,
    "MODEL.RETINANET.NMS_THRESH_TEST": _FRACTION,
    "MODEL.RETINANET.NUM_CONVS": _COUNT_OR_ZERO,
    "MODEL.RETINANET.PRIOR_PROB": _PROBABILITY,
    "MODEL.RETINANET.SCORE_THRESH_TEST": Range(high=1),
    "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": _AT_LEAST_0,
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": _COUNT,
    "MODEL.ROI_BOX_HEAD.PRIOR_PROB": _PROBABILITY,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": _COUNT,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": _FRACTION,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": _FRACTION,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": Range(high=1),
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": _COUNT,
    "MODEL.RPN.NMS_THRESH": _FRACTION,
    "MODEL.RPN.POSITIVE_FRACTION": _FRACTION,
    "MODEL.RPN.POST_NMS_TOPK_TEST": _COUNT,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": _COUNT,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": _COUNT,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": _COUNT,
    "MODEL.VGG.INPUT_SIZE": _COUNT,
    "MODEL.VGG.WIDTH": _POSITIVE,
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
    "INPUT.MIN_SIZE_TRAIN": _COUNT_OR_ZERO,
    "MODEL.PIXEL_MEAN": Range(),
    "MODEL.PIXEL_STD": _POSITIVE,
    "MODEL.RETINANET.IOU_LABELS": Range(-1, 1, whole=True),
    "MODEL.RETINANET.IOU_THRESHOLDS": _FRACTION,
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": _FRACTION,
    "MODEL.RPN.IOU_THRESHOLDS": _FRACTION,
    "SOLVER.STEPS": _COUNT,
    "TEST.AUG.MIN_SIZES": _COUNT,
    "TEST.KEYPOINT_OKS_SIGMAS": _POSITIVE,
}
# Of each entry of a list of lists.
YAML_NESTED_LISTS = {
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": _POSITIVE,
    "MODEL.ANCHOR_GENERATOR.SIZES": _POSITIVE,
}
NOT_EMPTY = (
    "INPUT.MIN_SIZE_TRAIN",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
    "MODEL.ANCHOR_GENERATOR.SIZES",
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
)
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
    _check(YAML, {key: select(cfg, key) for key in YAML})
    for key, allowed in {**YAML_LISTS, **YAML_NESTED_LISTS}.items():
        found = select(cfg, key)
        entries = _flatten(found) if key in YAML_NESTED_LISTS else found
        wrong = [value for value in entries if value not in allowed]
        if wrong:
            raise UserError(f"{key} holds {wrong[0]!r}; each entry must be {allowed}")
    for key in NOT_EMPTY:
        if not list(_flatten(select(cfg, key))):
            raise UserError(f"{key} is {select(cfg, key)!r}; give at least one number")
    _check_labels(cfg)
    _check_sizes(cfg)
    _check_schedule(cfg)


def _check_labels(cfg: CfgNode) -> None:
    for part in ("RETINANET", "RPN", "ROI_HEADS"):
        node = cfg.MODEL[part]
        if len(node.IOU_LABELS) != len(node.IOU_THRESHOLDS) + 1:
            raise UserError(
                f"MODEL.{part}.IOU_LABELS is {list(node.IOU_LABELS)}; give one label more than "
                f"MODEL.{part}.IOU_THRESHOLDS has numbers, {list(node.IOU_THRESHOLDS)}"
            )


def _check_sizes(cfg: CfgNode) -> None:
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and len(cfg.INPUT.MIN_SIZE_TRAIN) != 2:
        raise UserError(
            f"INPUT.MIN_SIZE_TRAIN is {list(cfg.INPUT.MIN_SIZE_TRAIN)}; give the smallest and the "
            "greatest size, for INPUT.MIN_SIZE_TRAIN_SAMPLING is range"
        )


def _check_schedule(cfg: CfgNode) -> None:
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


def _flatten(value: Any) -> Iterator[Any]:
    """The entries of a list, and of the lists in it."""
    if isinstance(value, list | tuple):
        for entry in value:
            yield from _flatten(entry)
    else:
        yield value
