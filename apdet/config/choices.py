"""The names that a YAML config may hold, so that a mistyped one is told with what is meant."""

import difflib
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_KEYPOINT_HEAD_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    RPN_HEAD_REGISTRY,
)

import apdet.modeling  # noqa: F401  registers the meta-architectures
from apdet.config.nodes import select
from apdet.errors import UserError

REGISTRIES = {
    "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.ANCHOR_GENERATOR.NAME": ANCHOR_GENERATOR_REGISTRY,
    "MODEL.PROPOSAL_GENERATOR.NAME": PROPOSAL_GENERATOR_REGISTRY,
    "MODEL.RPN.HEAD_NAME": RPN_HEAD_REGISTRY,
    "MODEL.ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
    "MODEL.ROI_BOX_HEAD.NAME": ROI_BOX_HEAD_REGISTRY,
    "MODEL.ROI_MASK_HEAD.NAME": ROI_MASK_HEAD_REGISTRY,
    "MODEL.ROI_KEYPOINT_HEAD.NAME": ROI_KEYPOINT_HEAD_REGISTRY,
}
# Values that Detectron2 accepts beside the names of a registry.
_OTHERS = {
    "MODEL.PROPOSAL_GENERATOR.NAME": ["PrecomputedProposals"],
    "MODEL.ROI_BOX_HEAD.NAME": [""],
}
_NORMS = ("", "BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N", "LN")
_BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou")
# What the functions of Detectron2 compare the values with.
CHOICES: dict[str, tuple[str | int, ...]] = {
    "DATALOADER.SAMPLER_TRAIN": (
        *("TrainingSampler", "RepeatFactorTrainingSampler"),
        *("RandomSubsetTrainingSampler", "WeightedTrainingSampler"),
    ),
    "INPUT.CROP.TYPE": ("relative_range", "relative", "absolute", "absolute_range"),
    "INPUT.MASK_FORMAT": ("polygon", "bitmask"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "MODEL.FPN.FUSE_TYPE": ("sum", "avg"),
    "MODEL.FPN.NORM": _NORMS,
    "MODEL.RESNETS.DEPTH": (18, 34, 50, 101, 152),
    "MODEL.RESNETS.NORM": _NORMS,
    "MODEL.RETINANET.BBOX_REG_LOSS_TYPE": _BOX_LOSSES,
    "MODEL.RETINANET.NORM": _NORMS,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": _BOX_LOSSES,
    "MODEL.ROI_BOX_HEAD.NORM": _NORMS,
    "MODEL.ROI_MASK_HEAD.NORM": _NORMS,
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": _BOX_LOSSES,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm"),
    "SOLVER.LR_SCHEDULER_NAME": (
        *("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"),
    ),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
}


def check_yaml_choices(cfg: CfgNode) -> None:
    """Check the names in a YAML config, also those of registries.

    Raises:
        UserError: nothing has such a name.
    """
    for key, registry in REGISTRIES.items():
        names = sorted([*_OTHERS.get(key, ()), *(name for name, _ in registry)])
        _check(key, select(cfg, key), names)
    for key, choices in CHOICES.items():
        _check(key, select(cfg, key), choices)


def _check(key: str, value: str | int, choices: Sequence[str | int]) -> None:
    if value in choices:
        return
    close = difflib.get_close_matches(str(value), map(str, choices), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    listed = ", ".join(str(choice) or '""' for choice in choices)
    raise UserError(f"{key} is {value!r}; {hint}choose one of {listed}")
