"""Detectors trained by ranking: the AP-loss (arXiv:2008.07294) for Detectron2 and plain torch."""

__version__ = "0.1.0"
