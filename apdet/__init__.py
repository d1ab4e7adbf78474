"""Detectors trained by ranking: the AP-loss (arXiv:2008.07294) for Detectron2 and plain torch."""

from apdet.compat import install

__version__ = "0.3.0"

install()  # the module paths of apdet 0.1 still work
