"""Converts the weights of a file to a checkpoint of a backbone."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from apdet.checkpoint.convert.architecture import Architecture
from apdet.checkpoint.convert.recognition import recognise
from apdet.checkpoint.weights_file import read_weights
from apdet.errors import UserError
from apdet.files import naming_file, whole_file

# The renamed weights of a backbone begin like this. Other weights belong to the classifier.
BACKBONE = re.compile(r"stem\.|res\d\.|conv\d|features\.")


@dataclass(frozen=True)
class Conversion:
    """Converted weights.

    Attributes:
        architecture: the architecture that the weights were recognised as.
        weights: {Detectron2's name: float32 weight}.
        left_out: {name in the source: reason} for each weight that was left out.
    """

    architecture: Architecture
    weights: dict[str, Tensor]
    left_out: dict[str, str]

    @property
    def missing(self) -> list[str]:
        """The names of the weights of the backbone that the source does not have."""
        return [name for name in self.architecture.shapes if name not in self.weights]


def convert_file(path: str) -> Conversion:
    """Convert the weights of a ``.pth``, ``.pt``, ``.safetensors`` or ``.onnx`` file.

    Raises:
        UserError: the file cannot be read, or :func:`convert` refuses its weights.
    """
    state = read_weights(path)
    try:
        return convert(state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def convert(state: Mapping[str, Tensor]) -> Conversion:
    """Convert weights with names of torchvision, timm or Keras to Detectron2's names.

    Args:
        state: {name: weight} of the source.

    Raises:
        UserError: the architecture is unknown, a shape is wrong, or the source has a weight in its
            backbone that Detectron2's backbone does not have.
    """
    architecture = recognise(state)
    weights: dict[str, Tensor] = {}
    left_out: dict[str, str] = {}
    for key, weight in state.items():
        name = architecture.rename(key, weight)
        if name in weights:
            raise UserError(f"{key} would be {name}, as another weight is; leave one of them out")
        if name in architecture.shapes:
            weights[name] = _fit(weight, key, name, architecture)
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


def _fit(weight: Tensor, key: str, name: str, architecture: Architecture) -> Tensor:
    if not weight.is_floating_point():
        raise UserError(f"{key} is of {weight.dtype}; weights are floating-point numbers")
    weight, shape = architecture.reshape(weight, key, name), architecture.shapes[name]
    if tuple(weight.shape) != shape:
        raise UserError(f"{key} has shape {tuple(weight.shape)}, but {name} has {shape}")
    # Copied, because torch would save a slice together with its whole tensor.
    weight = torch.empty(shape).copy_(weight)
    if not weight.isfinite().all():
        raise UserError(f"{key} has NaN or infinite values")
    return weight


def save(conversion: Conversion, out: str) -> None:
    """Write a checkpoint that Detectron2 can load, and make its folder if it does not exist.

    Raises:
        UserError: the file cannot be written. A previous file then remains.
    """
    data = {
        "model": conversion.weights,
        "__author__": conversion.architecture.author,
        # Detectron2 then matches names by their ends: a detector puts prefixes before them.
        "matching_heuristics": True,
    }
    with naming_file(out):
        os.makedirs(os.path.dirname(out) or ".", exist_ok=True)
    with whole_file(out) as file:
        torch.save(data, file)
