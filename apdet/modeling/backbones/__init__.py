"""Backbones that Detectron2 does not have."""

from apdet.modeling.backbones.vgg import SSDVGG16

__all__ = ["SSDVGG16"]
