"""Converts ImageNet weights of torchvision, timm and Keras for Detectron2's backbones."""

from apdet.checkpoint.convert.architecture import Architecture
from apdet.checkpoint.convert.conversion import Conversion, convert, convert_file, save
from apdet.checkpoint.convert.recognition import recognise
from apdet.checkpoint.convert.report import format_report

__all__ = [
    "Architecture",
    "Conversion",
    "convert",
    "convert_file",
    "format_report",
    "recognise",
    "save",
]
