"""Uses a trained model: detects objects in images, with nothing but the model file."""

from apdet.inference.detector import Detector

__all__ = ["Detector"]
