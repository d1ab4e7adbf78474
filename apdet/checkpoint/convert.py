"""ImageNet weights of torchvision, timm and Keras under the names of Detectron2's backbones."""

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import build_resnet_backbone
from torch import Tensor

from apdet.checkpoint.weights_file import read_weights
from apdet.errors import UserError
from apdet.modeling.backbones.vgg import SSDVGG16, STAGES

# How images are prepared, for pixels of 0 to 255: by torchvision and timm; by Keras, as by Caffe.
RGB = {"PIXEL_MEAN": [123.675, 116.28, 103.53], "PIXEL_STD": [58.395, 57.12, 57.375]}
BGR = {"PIXEL_MEAN": [103.939, 116.779, 123.68], "PIXEL_STD": [1.0, 1.0, 1.0]}

# Of a ResNet: whether its blocks are bottlenecks, and their number in each stage.
DEPTHS = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}
# Of a VGG-16 by torchvision or timm.
VGG_CONVS = dict(
    zip(
        [f"features.{i}" for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)],
        [conv for _, convs in STAGES for conv in convs],
        strict=True,
    )
)
VGG_FCS = {
    "classifier.0": "conv6",
    "classifier.3": "conv7",
    "pre_logits.fc1": "conv6",
    "pre_logits.fc2": "conv7",
}
# The shapes that fc6 and fc7 may have, by the convolution made of them.
FC_SHAPES = {
    "conv6.weight": [(4096, 25088), (4096, 512, 7, 7)],
    "conv6.bias": [(4096,)],
    "conv7.weight": [(4096, 4096), (4096, 4096, 1, 1)],
    "conv7.bias": [(4096,)],
}
# Of a VGG-16 by Keras; exporters put scopes before and numbers behind.
KERAS_CONV = re.compile(r"\bblock(\d)_conv(\d)(?!\d)")
# What a renamed weight of a backbone begins with; the rest is of the classifier.
BACKBONE = re.compile(r"stem\.|res\d\.|conv\d|features\.")


@dataclass(frozen=True)
class Architecture:
    """What a source was recognised as: whose names it has, and what they are to become.

    Args:
        settings: the config keys under MODEL that its weights go with.
        shapes: of each weight of the backbone, by Detectron2's name.
        rename: (key, weight) -> the name in the backbone, or another name of a weight not in it.
    """

    name: str
    author: str
    input_format: str
    settings: dict
    shapes: dict[str, tuple[int, ...]]
    rename: Callable[[str, Tensor], str]


@dataclass(frozen=True)
class Conversion:
    """Weights by Detectron2's names, and why each other key of the source was left out."""

    architecture: Architecture
    weights: dict[str, Tensor]
    left_out: dict[str, str]

    @property
    def missing(self) -> list[str]:
        """Weights of the backbone that the source has nothing for."""
        return [name for name in self.architecture.shapes if name not in self.weights]


def convert_file(path: str) -> Conversion:
    """Convert the weights of a ``.pth``, ``.pt``, ``.safetensors`` or ``.onnx`` file.

    Raises:
        UserError: a file that cannot be read, or weights that :func:`convert` refuses.
    """
    state = read_weights(path)
    try:
        return convert(state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def convert(state: Mapping[str, Tensor]) -> Conversion:
    """Convert weights by torchvision's, timm's or Keras's names to float32 by Detectron2's.

    Raises:
        UserError: nothing that matches, a wrong shape, or a backbone with more than Detectron2's.
    """
    architecture = recognise(state)
    weights, left_out = {}, {}
    for key, weight in state.items():
        name = architecture.rename(key, weight)
        if name in weights:
            raise UserError(f"{key} would be {name}, as another weight is; leave one of them out")
        if name in architecture.shapes:
            weights[name] = _fit(key, weight, name, architecture.shapes[name])
        elif key.endswith(".num_batches_tracked"):
            left_out[key] = "counters of training"
        elif BACKBONE.match(name):
            raise UserError(
                f"{key} has no counterpart in {architecture.name} as Detectron2 builds it, so its "
                "features would be others; take the weights of the plain architecture"
            )
        else:
            left_out[key] = "not of the backbone"
    return Conversion(architecture, weights, left_out)


def recognise(state: Mapping[str, Tensor]) -> Architecture:
    """Tell the architecture and the origin from names and shapes.

    Raises:
        UserError: names of none that is known, or a variant that our backbones do not have.
    """
    if any(re.match(r"layer\d\.\d+\.", key) for key in state):
        return _resnet(state)
    if any(re.match(r"(features\.)?\d+\.(weight|bias)$", key) for key in state):
        return _vgg(state)
    if any(KERAS_CONV.search(key) for key in state):
        return Architecture("VGG-16", "Keras", "BGR", BGR, _vgg_shapes(), _keras_vgg_name)
    first = f", e.g. {next(iter(state))}," if state else ""
    raise UserError(
        f"of its {len(state)} weights{first} none has a name of torchvision's or timm's ResNet "
        "(layer1.0.conv1.weight) or VGG-16 (features.0.weight), or of Keras's VGG-16 "
        "(block1_conv1)"
    )


def _resnet(state: Mapping[str, Tensor]) -> Architecture:
    settings = _resnet_settings(state)
    cfg = get_cfg()
    features = {"OUT_FEATURES": ["res2", "res3", "res4", "res5"]}
    cfg.merge_from_other_cfg(CfgNode({"MODEL": {"RESNETS": settings | features}}))
    with torch.device("meta"):
        shapes = _shapes(build_resnet_backbone(cfg, ShapeSpec(channels=3)))
    depth, groups, width = (settings[k] for k in ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP"))
    name = f"{'ResNeXt' if groups > 1 else 'ResNet'}-{depth}"
    if (groups, width) != (1, 64):
        name += f" {groups}x{width}d"
    settings = RGB | {"RESNETS": settings}
    # timm's names are torchvision's.
    return Architecture(name, "torchvision", "RGB", settings, shapes, _resnet_name)


def _resnet_settings(state: Mapping[str, Tensor]) -> dict:
    found = [re.match(r"layer(\d)\.(\d+)\.(conv3\.)?", key) for key in state]
    bottleneck = any(block and block[3] for block in found)
    blocks = tuple(
        1 + max((int(block[2]) for block in found if block and block[1] == stage), default=-1)
        for stage in "1234"
    )
    if (bottleneck, blocks) not in DEPTHS:
        known = ", ".join(f"ResNet-{depth}" for depth in DEPTHS.values())
        kind = "bottleneck" if bottleneck else "basic"
        raise UserError(f"layer1 to layer4 have {blocks} {kind} blocks; known are {known}")
    if not any(key.endswith(".running_mean") for key in state):
        raise UserError("it has no running_mean; take a ResNet with batch normalisation")
    settings = {"DEPTH": DEPTHS[bottleneck, blocks], "STRIDE_IN_1X1": False}
    if not bottleneck:
        return settings | {"NUM_GROUPS": 1, "WIDTH_PER_GROUP": 64, "RES2_OUT_CHANNELS": 64}
    conv = state.get("layer1.0.conv2.weight")
    if conv is None or conv.dim() != 4 or conv.shape[1] == 0:
        shape = "missing" if conv is None else f"of shape {tuple(conv.shape)}"
        raise UserError(f"layer1.0.conv2.weight, a convolution that tells the width, is {shape}")
    width = conv.shape[1]  # of a group
    return settings | {"NUM_GROUPS": max(len(conv) // width, 1), "WIDTH_PER_GROUP": width}


def _resnet_name(key: str, weight: Tensor) -> str:
    key = re.sub(r"^(?=(conv|bn)1\.)", "stem.", key)
    key = re.sub(r"^layer(\d)", lambda stage: f"res{int(stage[1]) + 1}", key)
    key = re.sub(r"\.bn(\d)\.", r".conv\1.norm.", key)
    return key.replace(".downsample.0.", ".shortcut.").replace(".downsample.1.", ".shortcut.norm.")


def _vgg(state: Mapping[str, Tensor]) -> Architecture:
    if any(key.endswith(".running_mean") for key in state):
        raise UserError(
            "this is a VGG-16 with batch normalisation, which SSD's has not; take the plain vgg16"
        )
    # timm's names are torchvision's but for the fully connected layers.
    author = "timm" if any(key.startswith("pre_logits.") for key in state) else "torchvision"
    return Architecture("VGG-16", author, "RGB", RGB, _vgg_shapes(), _vgg_name)


def _vgg_name(key: str, weight: Tensor) -> str:
    key = re.sub(r"^(?=\d+\.)", "features.", key)  # of `features` alone
    module, _, kind = key.rpartition(".")
    return f"{(VGG_CONVS | VGG_FCS).get(module, module)}.{kind}"


def _keras_vgg_name(key: str, weight: Tensor) -> str:
    # tf2onnx names a weight for the operation it went through, e.g. .../block1_conv1_1/Squeeze:0
    conv = KERAS_CONV.search(key)
    return f"conv{conv[1]}_{conv[2]}.{'bias' if weight.dim() == 1 else 'weight'}" if conv else key


def _vgg_shapes() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        shapes = _shapes(SSDVGG16(in_channels=3, out_features=["conv4_3", "conv7"]))
    del shapes["conv4_3_scale"]  # SSD's own
    return shapes


def _shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    # A counter of Detectron2's batch normalisation is of no use either.
    return {
        name: tuple(weight.shape)
        for name, weight in module.state_dict().items()
        if not name.endswith(".num_batches_tracked")
    }


def _fit(key: str, weight: Tensor, name: str, shape: tuple[int, ...]) -> Tensor:
    if not weight.is_floating_point():
        raise UserError(f"{key} is of {weight.dtype}; weights are floating-point numbers")
    if name in FC_SHAPES:
        weight = _subsample_fc(key, weight, name)
    if tuple(weight.shape) != shape:
        raise UserError(f"{key} has shape {tuple(weight.shape)}, but {name} has {shape}")
    # A copy: what is left of a slice would be saved with the whole of it.
    weight = torch.empty(shape).copy_(weight)
    if not weight.isfinite().all():
        raise UserError(f"{key} has NaN or infinite values")
    return weight


def _subsample_fc(key: str, weight: Tensor, name: str) -> Tensor:
    """Make of fc6 and fc7 convolutions of a quarter of the channels, and of fc6's 7 x 7 a 3 x 3.

    As SSD (arXiv:1512.02325), and before it DeepLab (arXiv:1412.7062), do.
    """
    if tuple(weight.shape) not in FC_SHAPES[name]:
        shapes = " or ".join(map(str, FC_SHAPES[name]))
        raise UserError(f"{key} has shape {tuple(weight.shape)}, but {name} is made of {shapes}")
    if name == "conv6.weight":
        return weight.reshape(4096, 512, 7, 7)[::4, :, ::3, ::3]
    if name == "conv7.weight":
        return weight.reshape(4096, 4096, 1, 1)[::4, ::4]
    return weight[::4]


def save(conversion: Conversion, out: str) -> None:
    """Write a checkpoint as Detectron2 loads it, in one piece; make its folder if need be.

    Raises:
        UserError: a file that cannot be written; a former one is as it was.
    """
    data = {
        "model": conversion.weights,
        "__author__": conversion.architecture.author,
        # Lets the names match those of a detector, which end in them.
        "matching_heuristics": True,
    }
    try:
        os.makedirs(os.path.dirname(out) or ".", exist_ok=True)
        torch.save(data, f"{out}.tmp")
        os.replace(f"{out}.tmp", out)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            os.remove(f"{out}.tmp")
        raise UserError(f"{out}: cannot be written: {error}") from error
