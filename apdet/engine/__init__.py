"""Training and evaluation: Detectron2's loop, with what a long training asks of it."""

from apdet.engine.trainer import Trainer

__all__ = ["Trainer"]
