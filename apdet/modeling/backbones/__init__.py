"""Backbones beside Detectron2's."""

from apdet.modeling.backbones.vgg import SSDVGG16

__all__ = ["SSDVGG16"]
