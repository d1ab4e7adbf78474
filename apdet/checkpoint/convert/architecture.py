"""The architecture that the weights of a file were recognised as."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Mean and standard deviation for pixels from 0 to 255. RGB: torchvision and timm. BGR: Keras, which
# follows Caffe.
RGB = {"PIXEL_MEAN": [123.675, 116.28, 103.53], "PIXEL_STD": [58.395, 57.12, 57.375]}
BGR = {"PIXEL_MEAN": [103.939, 116.779, 123.68], "PIXEL_STD": [1.0, 1.0, 1.0]}


def no_change(weight: Tensor, key: str, name: str) -> Tensor:
    """Return the weight as it is."""
    return weight


@dataclass(frozen=True)
class Architecture:
    """A backbone, and the conversion of weights from one library to it.

    Attributes:
        name: the name of the backbone, such as "ResNet-50".
        author: the library that the names of the weights come from: "torchvision", "timm" or
            "Keras".
        input_format: the order of channels that the weights expect, "RGB" or "BGR".
        settings: the values of config keys under MODEL that the weights need.
        shapes: {Detectron2's name: shape} for each weight of the backbone.
        rename: (key, weight) -> the name in the backbone, or any other name if the backbone does
            not have this weight.
        reshape: (weight, key, name) -> the weight in the shape of the backbone.
    """

    name: str
    author: str
    input_format: str
    settings: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    rename: Callable[[str, Tensor], str]
    reshape: Callable[[Tensor, str, str], Tensor] = no_change


def shapes_of(backbone: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights of a backbone that a file can provide."""
    return {
        name: tuple(weight.shape)
        for name, weight in backbone.state_dict().items()
        # A counter of batches is not a weight.
        if not name.endswith(".num_batches_tracked")
    }
