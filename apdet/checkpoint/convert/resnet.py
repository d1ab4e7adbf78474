"""Recognises ResNets and ResNeXts with the names of torchvision, which timm uses too."""

import re
from collections.abc import Mapping

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import build_resnet_backbone
from torch import Tensor

from apdet.checkpoint.convert.architecture import RGB, Architecture, shapes_of
from apdet.errors import UserError

# {(whether the blocks are bottlenecks, number of blocks in each stage): depth of the ResNet}.
DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}
BLOCK = re.compile(r"layer(\d)\.(\d+)\.(conv3\.)?")


def is_resnet(state: Mapping[str, Tensor]) -> bool:
    """Whether the weights have names of a ResNet."""
    return any(BLOCK.match(key) for key in state)


def resnet(state: Mapping[str, Tensor]) -> Architecture:
    """Recognise a ResNet by names and shapes.

    Raises:
        UserError: no known ResNet has this number of blocks, the weight that gives the width is
            missing, or there is no batch normalisation.
    """
    settings = _settings(state)
    cfg = get_cfg()
    features = {"OUT_FEATURES": ["res2", "res3", "res4", "res5"]}
    cfg.merge_from_other_cfg(CfgNode({"MODEL": {"RESNETS": settings | features}}))
    with torch.device("meta"):
        shapes = shapes_of(build_resnet_backbone(cfg, ShapeSpec(channels=3)))
    depth, groups, width = (settings[k] for k in ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP"))
    name = f"{'ResNeXt' if groups > 1 else 'ResNet'}-{depth}"
    if (groups, width) != (1, 64):
        name += f" {groups}x{width}d"
    return Architecture(name, "torchvision", "RGB", RGB | {"RESNETS": settings}, shapes, _rename)


def _settings(state: Mapping[str, Tensor]) -> dict[str, int | bool]:
    """Find the values of the keys under MODEL.RESNETS."""
    found = [match for key in state if (match := BLOCK.match(key))]
    bottleneck = any(match[3] for match in found)
    blocks = tuple(
        1 + max((int(match[2]) for match in found if match[1] == stage), default=-1)
        for stage in "1234"
    )
    if (bottleneck, blocks) not in DEPTHS:
        known = ", ".join(f"ResNet-{depth}" for depth in DEPTHS.values())
        kind = "bottleneck" if bottleneck else "basic"
        raise UserError(f"layer1 to layer4 have {blocks} {kind} blocks; known are {known}")
    if not any(key.endswith(".running_mean") for key in state):
        raise UserError("it has no running_mean; take a ResNet with batch normalisation")
    settings: dict[str, int | bool] = {
        "DEPTH": DEPTHS[bottleneck, blocks],
        "STRIDE_IN_1X1": False,
    }
    if not bottleneck:
        return settings | {"NUM_GROUPS": 1, "WIDTH_PER_GROUP": 64, "RES2_OUT_CHANNELS": 64}
    conv = state.get("layer1.0.conv2.weight")
    if conv is None or conv.dim() != 4 or conv.shape[1] == 0:
        shape = "missing" if conv is None else f"of shape {tuple(conv.shape)}"
        raise UserError(f"layer1.0.conv2.weight, a convolution that tells the width, is {shape}")
    width = conv.shape[1]  # channels in a group
    return settings | {"NUM_GROUPS": max(len(conv) // width, 1), "WIDTH_PER_GROUP": width}


def _rename(key: str, weight: Tensor) -> str:
    key = re.sub(r"^(?=(conv|bn)1\.)", "stem.", key)
    key = re.sub(r"^layer(\d)", lambda stage: f"res{int(stage[1]) + 1}", key)
    key = re.sub(r"\.bn(\d)\.", r".conv\1.norm.", key)
    return key.replace(".downsample.0.", ".shortcut.").replace(".downsample.1.", ".shortcut.norm.")
