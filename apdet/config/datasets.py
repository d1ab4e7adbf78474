"""Registers the data sets of a YAML config, and sets the number of classes."""

import logging

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, ROI_HEADS_REGISTRY

import apdet.modeling  # noqa: F401  registers the meta-architectures
from apdet.data.register import register

logger = logging.getLogger(__name__)

# Detectron2's detectors read the number of classes from these keys. A detector with another key
# names it in the attribute `num_classes_key`, see `apdet.modeling.contract`.
NUM_CLASSES_KEYS = ("MODEL.RETINANET.NUM_CLASSES", "MODEL.ROI_HEADS.NUM_CLASSES")


def register_datasets(cfg: CfgNode) -> None:
    """Register ``DATASETS.REGISTER`` and VOC, and set the model's number of classes.

    Args:
        cfg: changed in place. Every key for the number of classes is set to the number of classes
            of the data sets.

    Raises:
        UserError: see :func:`apdet.data.register.register`.
    """
    node = cfg.DATASETS
    classes = register(node.REGISTER, train=node.TRAIN, val=node.VAL, test=node.TEST)
    if classes:
        set_num_classes(cfg, len(classes))
        logger.info("The data sets have %d classes, and so has the model", len(classes))


def set_num_classes(cfg: CfgNode, num_classes: int) -> None:
    """Set every key for the number of classes, in place."""
    named = [
        registry.get(name).num_classes_key
        for registry, name in (
            (META_ARCH_REGISTRY, cfg.MODEL.META_ARCHITECTURE),
            (ROI_HEADS_REGISTRY, cfg.MODEL.ROI_HEADS.NAME),
        )
        if name in registry and hasattr(registry.get(name), "num_classes_key")
    ]
    frozen = cfg.is_frozen()
    cfg.defrost()
    for key in dict.fromkeys([*NUM_CLASSES_KEYS, *named]):
        _set(cfg, key, num_classes)
    if frozen:
        cfg.freeze()


def _set(cfg: CfgNode, key: str, value: int) -> None:
    *parents, name = key.split(".")
    for parent in parents:
        cfg = cfg[parent]
    cfg[name] = value
