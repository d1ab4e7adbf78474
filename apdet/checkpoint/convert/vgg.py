"""Recognises VGG-16 of torchvision, timm and Keras, and converts it to the backbone of SSD."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from apdet.checkpoint.convert.architecture import BGR, RGB, Architecture, shapes_of
from apdet.errors import UserError
from apdet.modeling.backbones.vgg import SSDVGG16, STAGES

CONV = re.compile(r"(features\.)?\d+\.(weight|bias)$")
# Exporters of Keras models add scopes before the name and numbers after it.
KERAS_CONV = re.compile(r"\bblock(\d)_conv(\d)(?!\d)")
# {layer of torchvision or timm: layer of SSD's backbone}.
NAMES = {
    **dict(
        zip(
            [f"features.{i}" for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)],
            [conv for _, convs in STAGES for conv in convs],
            strict=True,
        )
    ),
    "classifier.0": "conv6",
    "classifier.3": "conv7",
    "pre_logits.fc1": "conv6",
    "pre_logits.fc2": "conv7",
}
# {weight of SSD's backbone: possible shapes of the fully connected layer that it is made from}.
FC_SHAPES: dict[str, list[tuple[int, ...]]] = {
    "conv6.weight": [(4096, 25088), (4096, 512, 7, 7)],
    "conv6.bias": [(4096,)],
    "conv7.weight": [(4096, 4096), (4096, 4096, 1, 1)],
    "conv7.bias": [(4096,)],
}


def is_vgg(state: Mapping[str, Tensor]) -> bool:
    """Whether the weights have names of torchvision's or timm's VGG."""
    return any(CONV.match(key) for key in state)


def is_keras_vgg(state: Mapping[str, Tensor]) -> bool:
    """Whether the weights have names of Keras's VGG."""
    return any(KERAS_CONV.search(key) for key in state)


def vgg(state: Mapping[str, Tensor]) -> Architecture:
    """VGG-16 of torchvision or timm. Their names differ only in the fully connected layers.

    Raises:
        UserError: the weights are of a VGG-16 with batch normalisation.
    """
    if any(key.endswith(".running_mean") for key in state):
        raise UserError(
            "this is a VGG-16 with batch normalisation, which SSD's has not; take the plain vgg16"
        )
    author = "timm" if any(key.startswith("pre_logits.") for key in state) else "torchvision"
    return Architecture("VGG-16", author, "RGB", RGB, _shapes(), _rename, _subsample_fc)


def keras_vgg() -> Architecture:
    """VGG-16 of Keras, without its fully connected layers."""
    return Architecture("VGG-16", "Keras", "BGR", BGR, _shapes(), _rename_keras)


def _shapes() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        shapes = shapes_of(SSDVGG16(in_channels=3, out_features=["conv4_3", "conv7"]))
    del shapes["conv4_3_scale"]  # only SSD has it
    return shapes


def _rename(key: str, weight: Tensor) -> str:
    key = re.sub(r"^(?=\d+\.)", "features.", key)  # a file may hold `features` alone
    module, _, kind = key.rpartition(".")
    return f"{NAMES.get(module, module)}.{kind}"


def _rename_keras(key: str, weight: Tensor) -> str:
    # tf2onnx adds the last operation on a weight to its name: .../block1_conv1_1/Squeeze:0
    conv = KERAS_CONV.search(key)
    return f"conv{conv[1]}_{conv[2]}.{'bias' if weight.dim() == 1 else 'weight'}" if conv else key


def _subsample_fc(weight: Tensor, key: str, name: str) -> Tensor:
    """Convert a fully connected layer to a convolution with a quarter of its channels.

    The 7 x 7 weights of a channel are subsampled to 3 x 3, as in SSD (arXiv:1512.02325) and DeepLab
    (arXiv:1412.7062).
    """
    if name not in FC_SHAPES:
        return weight
    if tuple(weight.shape) not in FC_SHAPES[name]:
        shapes = " or ".join(map(str, FC_SHAPES[name]))
        raise UserError(f"{key} has shape {tuple(weight.shape)}, but {name} is made of {shapes}")
    if name == "conv6.weight":
        return weight.reshape(4096, 512, 7, 7)[::4, :, ::3, ::3]
    if name == "conv7.weight":
        return weight.reshape(4096, 4096, 1, 1)[::4, ::4]
    return weight[::4]
