"""Recognises the architecture of weights, and the library that their names come from."""

from collections.abc import Mapping

from torch import Tensor

from apdet.checkpoint.convert.architecture import Architecture
from apdet.checkpoint.convert.resnet import is_resnet, resnet
from apdet.checkpoint.convert.vgg import is_keras_vgg, is_vgg, keras_vgg, vgg
from apdet.errors import UserError


def recognise(state: Mapping[str, Tensor]) -> Architecture:
    """Recognise the architecture and the library from the names and shapes of weights.

    Raises:
        UserError: the architecture is unknown, or is a variant that Detectron2's backbones do not
            have.
    """
    if is_resnet(state):
        return resnet(state)
    if is_vgg(state):
        return vgg(state)
    if is_keras_vgg(state):
        return keras_vgg()
    first = f", e.g. {next(iter(state))}," if state else ""
    raise UserError(
        f"of its {len(state)} weights{first} none has a name of torchvision's or timm's ResNet "
        "(layer1.0.conv1.weight) or VGG-16 (features.0.weight), or of Keras's VGG-16 "
        "(block1_conv1)"
    )
